"""A run in small: the user's config, tokenizer, template and data with a small random model, from plan to export.

What fails here would fail in the run, with the same line; what cannot be tried on a CPU in a minute is said.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from ftk import ConfigError, DataError, Engine, ModelError, Sampling, Trainer
from ftk.opening import open_run, plan_run
from ftk.run import Run, execute
from ftk_training import TrainingOptions
from ftk_training.checks import Check
from ftk_training.optims import OPTIMS

from ftk_verify import disk, exporting, merging, small_model
from ftk_verify.bench import Bench, muted
from ftk_verify.verify_command import tried

STEPS = 4
ROWS = 12
SHORT = 512
"""Tokens of a row, unless that cuts all answers away."""

ON_CPU: dict[str, Any] = {
    "use_cpu": True, "fp16": False, "tf32": None, "flash_attn": "auto", "device_map": None, "launcher": None,
    "deepspeed": None, "fsdp": None, "parallelism_config": None, "torch_compile": False, "torch_compile_backend": None,
    "torch_compile_mode": None, "enable_liger_kernel": False, "use_unsloth": False, "use_unsloth_gc": False,
    "ddp_backend": None,
}  # fmt: skip
"""What a CPU cannot do, or what would start other processes."""

IN_SMALL: dict[str, Any] = {
    "max_steps": STEPS, "save_steps": 2, "eval_steps": 2, "eval_delay": 0, "logging_steps": 1, "warmup_steps": 0,
    "max_new_tokens": 8, "generate_samples": 2, "preprocessing_num_workers": 1, "dataloader_num_workers": 0,
    "dataloader_persistent_workers": False, "dataloader_prefetch_factor": None, "disable_tqdm": True,
}  # fmt: skip
APART: dict[str, Any] = {
    "overwrite_output_dir": False, "resume_from_checkpoint": None, "tokenized_path": None, "report_to": "none",
    "push_to_hub": False, "adapter_name_or_path": [], "streaming": False,
}  # fmt: skip
"""What would touch the user's folders or send something out."""

UNTRIED = {
    "report_to": "trackers, nothing is sent anywhere", "push_to_hub": "the upload to the hub",
    "adapter_name_or_path": "the adapters of adapter_name_or_path", "streaming": "streaming",
    "deepspeed": "DeepSpeed", "fsdp": "FSDP", "launcher": "the launcher", "fp16": "float16",
    "flash_attn": "flash attention", "torch_compile": "torch.compile", "enable_liger_kernel": "Liger kernels",
    "use_unsloth": "Unsloth", "device_map": "device_map", "tokenized_path": "tokenized_path",
}  # fmt: skip


@dataclass
class Rehearsal:
    """One rehearsal. say: called with a line for each thing that was tried. folder: a temporary one."""

    config: str
    words: Sequence[str]
    folder: Path
    say: Callable[[str, float, str], None]
    untried: list[str] = field(default_factory=list)

    def perform(self) -> None:
        """Try everything, in the order of a run. Raises what the run would raise."""
        with self._timed("plan") as note:
            self.plan = plan_run(self.config, self.words)
            note.append(f"stage {self._trainer.name}")
            self._note_untried()
        with self._timed("output_dir") as note:
            disk.check_writable(Path(self.plan.value("output_dir")))
            note.append("can be written")
        if TrainingOptions in self.plan.options:
            with self._timed("arguments"):
                from ftk_training.arguments import make_arguments

                with muted():
                    make_arguments(Run(self.plan))
        with self._timed("model") as note:
            note.append(self._make_model())
        self._check_disk()
        with self._timed("train, evaluate, save") as note:
            trained = self._train(note)
        self._resume()
        with self._timed("reload") as note:
            note.append(self._reload(trained))
        self._answer()
        self._checks()
        with self._timed("export") as note:
            note.append(exporting.export(self.small.registry, self.out, self.folder / "exported", self._opened))

    @property
    def _trainer(self) -> Trainer:
        return cast("Trainer", self.plan.one("trainer"))

    @contextmanager
    def _timed(self, name: str) -> Iterator[list[str]]:
        began, note = time.monotonic(), list[str]()
        yield note
        self.say(name, time.monotonic() - began, "; ".join(filter(None, note)))

    def _note_untried(self) -> None:
        known = self.plan.registry.options
        for key, what in UNTRIED.items():
            value = self.plan.value(key) if key in known else None
            if value not in (None, False, "", (), [], ("none",), "none", "auto", "disabled", "sdpa"):
                self.untried.append(what)

    # What the small run changes.

    def _changes(self) -> list[str]:
        known = self.plan.registry.options
        changes = {**APART, **IN_SMALL, **ON_CPU}
        for key in ("per_device_train_batch_size", "gradient_accumulation_steps", "per_device_eval_batch_size"):
            if key in known and self._trainer.examples != "prompts":  # those come in groups of a given size
                changes[key] = min(2, self.plan.value(key))
        if "val_size" in known and self.plan.value("val_size"):
            changes["val_size"] = 2
        changes["max_samples"] = max(4, -(-ROWS // max(1, len(self.plan.datasets.get("train", ())))))
        if (needs := OPTIMS.get(self._value("optim"))) and needs.accelerator:
            changes["optim"] = "adamw_torch"
            self.untried.append(f"optim {self._value('optim')}, which needs a GPU")
        if any(getattr(spec, "gpu", False) for spec in self.plan.chosen.get("quantizer", ())):
            changes |= {"quantization_bit": None, "quantization_method": None}
            self.untried.append(f"quantisation with {self.plan.chosen['quantizer'][0].name}, which needs a GPU")
        bench = Bench(self.config, self.words, self.folder)
        return bench.changed(changes)[len(self.words) :]

    def _value(self, key: str) -> Any:
        return self.plan.value(key) if key in self.plan.registry.options else None

    def _make_model(self) -> str:
        model = self.folder / "model"
        ranks = [value for key, value in self.plan.values.items() if key.endswith("rank") and isinstance(value, int)]
        least = max([64, *(2 * rank for rank in ranks), 128 if self.plan.chosen.get("quantizer") else 64])
        said = small_model.make(self.config, self.words, self.plan.registry, model, min(least, 1024))
        if (
            small_model.bare_run(self.config, self.words, self.plan.registry)
            .model_config.to_dict()
            .get("quantization_config")
        ):
            self.untried.append("the quantised files of the model")
        self.small_words = [*self.words, *self._changes(), *small_model.small_words(model), *self._other_models(model)]
        self.small_words += [f"--output_dir={self.folder / 'out'}", *self._short_rows()]
        self.small = plan_run(self.config, self.small_words)
        return said

    def _other_models(self, model: Path) -> list[str]:
        """Models beside the run's own become the small one, too: a reference, a judge."""
        words = [f"--{key}={model}" for key in ("ref_model", "reward_model") if self._value(key)]
        return [*words, *(f"--{key}=[]" for key in ("ref_model_adapters", "reward_model_adapters") if self._value(key))]

    def _short_rows(self) -> list[str]:
        """Rows of fewer tokens, where there are still answers in them then."""
        if (self._value("cutoff_len") or 0) <= SHORT:
            return []
        short = [f"--cutoff_len={SHORT}"]
        try:
            with muted():
                for split in ("train", "eval") if self.plan.datasets.get("eval") else ("train",):
                    Run(plan_run(self.config, [*self.small_words, *short])).rows(split)
        except DataError:
            return []
        return short

    def _check_disk(self) -> None:
        words = [*self.words, "--train_from_scratch=true", "--quantization_bit=null", "--quantization_method=null"]
        words += [f"--{key}={value}" for key, value in (("adapter_name_or_path", "[]"), ("launcher", "null"))]
        with self._timed("disk") as note:
            try:
                model, adapter = disk.at_full_size(self.config, words)
            except Exception as error:  # not every method can be told the shapes alone
                self.untried.append(f"the room on the disk ({type(error).__name__})")
                note.append("not estimated")
                return
            note.append(disk.check_room(self.plan, model, adapter))

    # What is tried.

    def _train(self, note: list[str]) -> Any:
        run = Run(self.small)
        with muted():
            metrics = execute(self.small, run)
        self.out = Path(self.small.value("output_dir"))
        evaluated = [f"{name} {value:.3f}" for name, value in metrics.items() if name == "eval_loss"]
        checkpoints = sorted(self.out.glob("checkpoint-*"))
        note += [f"{STEPS} steps", f"{len(checkpoints)} checkpoints", *evaluated]
        if not evaluated:
            self.untried.append("evaluation, the run has none")
        return run

    def _resume(self) -> None:
        checkpoints = sorted(self.out.glob("checkpoint-*"))
        if not checkpoints or self._value("save_only_model"):
            self.untried.append("resuming, there are no checkpoints to resume from")
            return
        with self._timed("resume") as note, muted():
            words = [*self.small_words, f"--output_dir={self.folder / 'resumed'}", f"--max_steps={STEPS + 1}"]
            execute(plan_run(self.config, [*words, f"--resume_from_checkpoint={checkpoints[0]}"]))
            note.append(f"from {checkpoints[0].name}")

    def _opened(self) -> Run:
        return open_run("rehearse", str(self.out), Bench(self.config, self.words, self.folder).media_words())

    def _reload(self, run: Any) -> str:
        with muted():
            rows = run.rows("train")
            first = rows[0] if hasattr(rows, "__len__") else next(iter(rows))
            model = run.model(trainable=True)
            batch = merging.shown_batch(run, first, merging.MOST_TOKENS)
            wanted_TV = merging.logits(getattr(model, "pretrained_model", model), batch)
            del model
            self.model = self._opened().model(trainable=False)
            share = merging.apart(merging.logits(self.model, batch), wanted_TV)
        if share > Bench(self.config, self.words, self.folder).tolerance:
            raise ModelError(
                f"{self.plan.config}: what the run saves says something else than what it trained: logits are "
                f"{share:.1e} apart. ftk verify --only merged looks closer"
            )
        return f"logits {share:.1e} apart from the trained model's"

    def _answer(self) -> None:
        run = self._opened()
        engine = run.plan.one("engine")
        if isinstance(engine, Engine) and not engine.loads_model:
            self.untried.append(f"engine {engine.name}, which loads the model itself")
            return
        if self._trainer.examples == "text":
            return
        with self._timed("answer") as note, muted():
            from ftk_verify.inference import prompts_of

            bench = Bench(self.config, self.small_words, self.folder / "bench")
            prompt = next((prompt for example in bench.examples() for prompt in prompts_of(example)), None)
            if prompt is None:
                note.append("no row asks anything")
                return
            answering = run.engine(self.model)
            (reply,) = answering.generate([prompt], Sampling(max_new_tokens=4))
            answering.close()
            note.append(f"{reply.num_tokens} tokens")

    def _checks(self) -> None:
        bench = Bench(self.config, self.small_words, self.folder / "bench")
        for check in cast("dict[str, Check]", self.plan.registry.specs(Check.kind)).values():
            if not check.rehearsed:
                continue
            with self._timed(check.name) as note:
                outcome = tried(check, bench).outcome
                if outcome.passed is False:
                    details = "".join(f"; {line}" for line in outcome.details)
                    raise ConfigError(f"{self.plan.config}: {check.name}: {outcome.said}{details}. {check.mend}")
                note.append(outcome.said if outcome.passed else f"does not apply: {outcome.said}")
