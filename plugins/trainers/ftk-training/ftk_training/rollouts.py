"""A model's own answers as training data: what stages of reinforcement learning share.

:class:`Rollouts` is the :class:`ftk_training.loops.Loop` of such a stage. At the beginning of a phase it lets an engine
answer prompts with the weights of this moment, has the answers judged, and asks the stage what each token is worth; the
steps of the phase train that. :mod:`ftk_training.rhythm` says which answers when.

Shapes: N trained tokens of a batch, row after row, as in ``ftk_training.logprobs``.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from ftk import CheckpointError, ConfigError, Engine, Reply
from ftk_data.originals import Originals
from safetensors.torch import load_file, save_file

from ftk_training import reporting
from ftk_training.collator import IGNORED, Collator
from ftk_training.rhythm import Rhythm, Slots
from ftk_training.rolled import Rolled, prompt_at, restored, sampling_of, stored
from ftk_training.rollout_options import RolloutOptions

if TYPE_CHECKING:
    from ftk.run import Run
    from transformers import TrainingArguments

    from ftk_training.trainer import Batch, ExactTrainer

log = logging.getLogger("ftk.training")

STATE = "rollouts.json"
COMPLETIONS = "completions.jsonl"
ROLLOUT = "rollout"
"""The key of a batch under which stands what the stage knows of its N tokens."""


class Stage(Protocol):
    """What a stage adds to :class:`Rollouts`."""

    def rhythm(self, arguments: TrainingArguments, num_prompts: int) -> Rhythm:
        """When what is trained. Raises ConfigError for numbers that do not go together."""

    def begin(self, rollouts: Rollouts) -> None:
        """The trainer is there: ``rollouts.trainer``."""

    def worth(self, rollouts: Rollouts, rolled: Rolled, *, evaluating: bool) -> dict[str, Any]:
        """Fill ``rolled.values`` and ``rolled.trained``; returns metrics: name → (sum, number of things).

        evaluating: nothing that outlives the call may change.
        """

    def state(self) -> dict[str, Any]:
        """What a resumed run needs to know, for JSON."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state` gave."""


Judge = Callable[[Rolled], "tuple[torch.Tensor, torch.Tensor, dict[str, Any]]"]
"""``judge(rolled) -> (scores_NJ, rewards (N,), metrics)``."""


class Rollouts:
    """The loop of a stage that learns from its own answers. judge: see :data:`Judge`.

    group: how many answers an evaluation takes for each prompt.
    """

    def __init__(self, run: Run, stage: Stage, judge: Judge, *, group: int = 1) -> None:
        self.run, self.stage, self.judge, self.group = run, stage, judge, group
        self.logs_answers = run.options(RolloutOptions).log_completions
        self.sampling = sampling_of(run)
        self.number = -1
        self.rolled: Rolled | None = None

    # Loop

    def rows(self, arguments: TrainingArguments, train: Any, evaluation: Any) -> tuple[Any, Any]:
        self.rows_per_pass = arguments.per_device_train_batch_size
        slots = None
        if train is not None:
            self.prompts = [(train, Originals(self.run, "train", train))]
            self.rhythm = self.stage.rhythm(arguments, len(train))
            slots = Slots(self.rhythm.slots)
        arguments.train_sampling_strategy = "sequential"
        arguments.dataloader_num_workers, arguments.dataloader_prefetch_factor = 0, None
        arguments.dataloader_persistent_workers = False
        sets = evaluation if isinstance(evaluation, Mapping) else {"": evaluation} if evaluation is not None else {}
        self.evaluated: list[tuple[Any, Originals]] = []
        made: dict[str, Slots] = {}
        for name, rows in sets.items():
            made[name] = Slots(len(rows), sum(len(one) for one, _ in self.evaluated))
            self.evaluated.append((rows, Originals(self.run, "eval", rows)))
        return slots, (made if isinstance(evaluation, Mapping) else made.get(""))

    def begin(self, trainer: ExactTrainer) -> None:
        self.trainer = trainer
        if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
            raise ConfigError(f"{self.run.plan.config}: a model that is spread over processes cannot answer here yet")
        tokenizer = self.run.tokenizer
        pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        media = self.run.media if self.run.processor is not None else None
        self.collator = Collator(pad_id=pad_id or 0, media=media)
        spec = cast("Engine", self.run.plan.one("engine"))
        self.engine = self.run.engine(self.model if spec.loads_model else None)
        if not spec.loads_model and not hasattr(self.engine, "refresh"):
            raise ConfigError(
                f"{self.run.plan.where('infer_backend')}: cannot take over the weights of a model in training. "
                "Leave it out"
            )
        self.stage.begin(self)

    @property
    def model(self) -> Any:
        """The model that learns, without what spreads it over devices."""
        return self.trainer.accelerator.unwrap_model(self.trainer.model)

    def step(self, batches: Sequence[Batch]) -> list[Batch]:
        slots = [[int(slot) for slot in batch["slots"]] for batch in batches]
        rhythm, args = self.rhythm, self.trainer.args
        steps = rhythm.slots // (rhythm.rows * rhythm.num_processes * args.gradient_accumulation_steps)
        epoch = self.trainer.state.global_step // steps
        phase, turn, _ = rhythm.place(slots[0][0])
        number = epoch * rhythm.phases + phase
        if self.rolled is None or self.number != number:
            with self.undisturbed(rhythm.number(epoch, phase)):
                self.number, self.rolled = number, None
                self.rolled = self._phase(epoch, phase)
        order = rhythm.in_turn(epoch, phase, turn)
        rolled = self.rolled
        return [self.placed(self.batch(rolled, [order[rhythm.place(slot).answer] for slot in part])) for part in slots]

    def evaluation(self, batch: Batch) -> tuple[Batch, Mapping[str, Any]]:
        slots = [int(slot) for slot in batch["slots"] for _ in range(self.group)]
        with self.undisturbed(self.run.seed):
            rolled = self.answered(self.evaluated, slots, self.run.seed * 8_191 + slots[0])
            metrics = self._judged(rolled) | self.stage.worth(self, rolled, evaluating=True)
        return self.placed(self.batch(rolled, range(len(rolled)))), metrics

    # A phase

    def gathered(self, own: torch.Tensor) -> torch.Tensor:
        """What each process knows of its answers (one number each), in the order of all answers of the phase."""
        accelerator = self.trainer.accelerator
        if accelerator.num_processes == 1:
            return own
        all_ = accelerator.gather(own.to(accelerator.device)).to(own.device)
        places = [
            self.rhythm.answer(own, process)
            for process in range(accelerator.num_processes)
            for own in range(self.rhythm.num_own)
        ]
        made = torch.empty_like(all_)
        made[torch.tensor(places)] = all_
        return made

    def _phase(self, epoch: int, phase: int) -> Rolled:
        rhythm = self.rhythm
        rolled = self.answered(self.prompts, rhythm.prompts(epoch, phase), rhythm.number(epoch, phase, 1))
        metrics = self._judged(rolled) | self.stage.worth(self, rolled, evaluating=False)
        self.trainer.progress.add(metrics, 0)
        if self.logs_answers:
            self._write(rolled)
        return rolled

    def _judged(self, rolled: Rolled) -> dict[str, Any]:
        rolled.scores_NJ, rolled.rewards, metrics = self.judge(rolled)
        lengths = torch.tensor([float(len(ids)) for ids in rolled.answer_ids])
        num = len(rolled)
        return {
            "reward": (rolled.rewards.sum(), num),
            **metrics,
            "completion_length": (lengths.sum(), num),
            "clipped_ratio": (num - sum(rolled.finished), num),
        }

    def summed(self, own: Any) -> Any:
        """The sum over all processes of a dataclass of numbers."""
        accelerator = self.trainer.accelerator
        if accelerator.num_processes == 1:
            return own
        values = torch.tensor(astuple(own), dtype=torch.float64, device=accelerator.device)
        return type(own)(*accelerator.gather(values[None]).sum(dim=0).tolist())

    def answered(self, sets: Sequence[tuple[Any, Originals]], numbers: Sequence[int], seed: int) -> Rolled:
        """Answers to prompts, which are counted through all ``sets``, with the weights of this moment."""
        found = [prompt_at(sets, number) for number in numbers]
        if hasattr(self.engine, "refresh"):
            self.engine.refresh(self.model)
        replies: list[Reply] = []
        size = self.run.options(RolloutOptions).rollout_batch_size or len(found)
        for first in range(0, len(found), size):
            sampling = replace(self.sampling, seed=(seed + first) % 2**31)
            replies += self.engine.generate([one.prompt for one in found[first : first + size]], sampling)
        return Rolled(
            prompts=list(numbers),
            prompt_ids=[one.ids for one in found],
            answer_ids=[self._tokens(reply) for reply in replies],
            finished=[reply.finish == "stop" for reply in replies],
            texts=[reply.text for reply in replies],
            media=[one.media for one in found],
            originals=[one.original for one in found],
            trained=[True] * len(found),
        )

    def _tokens(self, reply: Reply) -> list[int]:
        """What the engine sampled, or the tokens of its text where it does not tell."""
        if "tokens" in reply.meta:
            return [int(token) for token in reply.meta["tokens"]]
        tokenizer = self.run.tokenizer
        ids = list(tokenizer(reply.text, add_special_tokens=False)["input_ids"])
        return [*ids, tokenizer.eos_token_id] if reply.finish == "stop" else ids

    # Batches

    def batch(self, rolled: Rolled, numbers: Sequence[int]) -> Batch:
        """Some answers behind their prompts, padded; and under ``rollout`` their values, (N,) each."""
        rows = []
        for number in numbers:
            ids, answer = rolled.prompt_ids[number], rolled.answer_ids[number]
            labels = answer if rolled.trained[number] else [IGNORED] * len(answer)
            row: dict[str, Any] = {"input_ids": [*ids, *answer], "labels": [IGNORED] * len(ids) + labels}
            rows.append(row | ({"media": rolled.media[number]} if rolled.media[number] else {}))
        known = {
            name: torch.cat([values[number] for number in numbers if rolled.trained[number]] or [torch.zeros(0)])
            for name, values in rolled.values.items()
        }
        return {**self.collator(rows), ROLLOUT: known}  # type: ignore[dict-item]

    def placed(self, batch: Batch) -> Batch:
        """The batch on the device of this process."""
        return cast("Batch", self.trainer._prepare_input(batch))

    def passes(self, rolled: Rolled) -> Iterator[tuple[list[int], Batch]]:
        """All answers, as many at a time as one forward pass of training takes, ready for a model."""
        for first in range(0, len(rolled), self.rows_per_pass):
            numbers = list(range(first, min(first + self.rows_per_pass, len(rolled))))
            batch = self.batch(rolled, numbers)
            batch.pop(ROLLOUT)
            yield numbers, self.placed(batch)

    @contextmanager
    def undisturbed(self, seed: int) -> Iterator[None]:
        """No gradients, the model in evaluation mode, and the random state afterwards as it was."""
        model = self.model
        was_training = model.training
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(seed)
            model.eval()
            try:
                yield
            finally:
                model.train(was_training)

    # Checkpoints

    def _file(self, folder: Path) -> Path:
        return folder / f"rollouts-{self.trainer.args.process_index}.safetensors"

    def save(self, folder: Path) -> None:
        """The stage's state, and the answers of a phase of which steps are still to come."""
        args = self.trainer.args
        if args.should_save:
            state = {"stage": self.stage.state(), "num_processes": args.world_size}
            (folder / STATE).write_text(json.dumps(state), encoding="utf-8")
        per_phase = self.rhythm.passes * self.rhythm.batches // args.gradient_accumulation_steps
        if self.rolled is None or not self.trainer.state.global_step % per_phase:
            return
        save_file(stored(self.rolled, self.number), self._file(folder))

    def restore(self, folder: Path) -> None:
        path = folder / STATE
        if not path.exists():
            raise CheckpointError(f"{folder}: has no {STATE}, so no stage that learns from its own answers wrote it")
        state = json.loads(path.read_text(encoding="utf-8"))
        self.stage.restore(state["stage"])
        if self.logs_answers and self.trainer.args.should_save:
            reporting.truncate(self.run.output_dir / COMPLETIONS, self.trainer.state.global_step)
        file = self._file(folder)
        if state["num_processes"] != self.trainer.args.world_size:
            log.warning("%s: was written by %d processes, so answers are made anew", folder, state["num_processes"])
        elif file.exists():
            self.number, self.rolled = restored(load_file(file), self.prompts)

    def _write(self, rolled: Rolled) -> None:
        """Add the answers of a phase to ``completions.jsonl``; ``step`` is the first that trains them."""
        if not self.trainer.args.should_save:
            return
        step = self.trainer.state.global_step + 1
        with (self.run.output_dir / COMPLETIONS).open("a", encoding="utf-8") as file:
            for number in range(len(rolled)):
                line = {
                    "step": step,
                    "prompt": self.run.tokenizer.decode(rolled.prompt_ids[number]),
                    "completion": rolled.texts[number],
                    "reward": round(float(rolled.rewards[number]), 6),
                }
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
