"""Checkpoints: written aside, verified, renamed; and what a run needs to go on exactly where it stopped.

transformers keeps model, optimizer, schedule, random state and its own counters. What it forgets at a resume (the loss
since the last log line, the time, the patience of early stopping) is kept here, in ``progress.json``.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftk import CheckpointError, rundir
from safetensors import SafetensorError

from ftk_training import interrupting, learning
from ftk_training.quick_imports import quick_imports

with quick_imports():
    from transformers import AutoConfig

if TYPE_CHECKING:
    from ftk.run import Run

    from ftk_training.trainer import ExactTrainer

log = logging.getLogger("ftk.training")

PROGRESS = "progress.json"
STATE = "trainer_state.json"
OPTIMIZER = ("optimizer.pt", "optimizer.bin", "global_step*", "optimizer_*")
"""Files and folders of which a resumable checkpoint has one: transformers', FSDP's and DeepSpeed's."""


def to_resume(run: Run) -> Path | None:
    """The checkpoint that this run goes on from; None starts at the beginning.

    That is the one that ``resume_from_checkpoint`` names, or the newest complete one of the run directory when the run
    continues; incomplete ones are skipped and the log says why.
    Raises CheckpointError when the named one is not complete, or none is and the user asked for one.
    """
    wanted = run.value("resume_from_checkpoint")
    if isinstance(wanted, str):
        return _named(Path(wanted))
    if not (run.continues or wanted):
        return None
    newest = _newest_complete(run.output_dir)
    if newest is None and wanted:
        raise CheckpointError(
            f"{run.output_dir}: resume_from_checkpoint is true and there is no complete checkpoint. Leave it out to "
            "start at the beginning"
        )
    if newest is not None:
        log.info("continuing from %s", newest)
    return newest


def _named(folder: Path) -> Path:
    problem = unusable(folder) if folder.is_dir() else "there is no such folder"
    if problem:
        raise CheckpointError(
            f"resume_from_checkpoint: {folder}: {problem}. Name another, or true for the newest complete one"
        )
    return folder


def _newest_complete(output_dir: Path) -> Path | None:
    skipped: list[str] = []
    found = None
    for folder in reversed(checkpoints_of(output_dir)):
        problem = rundir.damage(folder) or unusable(folder)
        if not problem:
            found = folder
            break
        skipped.append(f"{folder}: {problem}")
    for line in skipped:
        log.warning("%s; %s is used instead", line, found or "the beginning")
    return found


def unusable(folder: Path) -> str:
    """Why nobody can resume from a checkpoint, also one that another program wrote; empty when it looks whole."""
    if (folder / rundir.MANIFEST).exists() and (problem := rundir.damage(folder)):
        return problem
    if not (folder / STATE).exists():
        return f"{STATE} is missing"
    if not any(next(folder.glob(pattern), None) for pattern in OPTIMIZER):
        return "it holds no optimizer (save_only_model)"
    return ""


def checkpoints_of(output_dir: Path) -> list[Path]:
    """The checkpoint folders of a run directory, oldest step first."""
    found = [
        path for path in output_dir.glob("checkpoint-*") if path.name.partition("-")[2].isdigit() and path.is_dir()
    ]
    return sorted(found, key=_step)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.partition("-")[2])


@contextmanager
def _aside_of_all(trainer: ExactTrainer, target: Path) -> Iterator[Path]:
    """The folder aside in which every process puts its part; the first one makes it and gives it its name."""
    wait = trainer.accelerator.wait_for_everyone
    if not trainer.args.should_save:
        wait()
        yield target.with_name(f"{rundir.ASIDE}{target.name}")
        wait()
        wait()
        return
    with rundir.written_aside(target) as folder:
        wait()
        try:
            yield folder
        except (RuntimeError, SafetensorError) as cause:  # what torch and safetensors make of a full disk
            raise CheckpointError(f"{target}: cannot be written: {reason(cause, folder)}. {rundir.KEPT}") from cause
        wait()
    wait()


def reason(error: BaseException, folder: Path) -> str:
    """Why writing failed, in one line. torch and safetensors do not always say when it is the disk."""
    if shutil.disk_usage(folder).free < 2**20:
        return "No space left on device"
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def save(trainer: ExactTrainer) -> Path:
    """Save everything that a resume needs as ``checkpoint-STEP``, then remove those over ``save_total_limit``.

    Raises CheckpointError when the disk is full; earlier checkpoints stay.
    """
    state, args = trainer.state, trainer.args
    target = trainer.run.output_dir / f"checkpoint-{state.global_step}"
    _note_best(trainer, target)
    gathered = trainer.accelerator.gather(trainer._tr_loss.reshape(1)).tolist()
    with _aside_of_all(trainer, target) as folder:
        trainer.save_model(str(folder), _internal_call=True)
        if not args.save_only_model or interrupting.of(trainer.run).agreed:
            trainer._save_optimizer_and_scheduler(str(folder))
            trainer._save_scaler(str(folder))
            trainer._save_rng_state(str(folder))
        if trainer.loop is not None:
            trainer.loop.save(folder)
        progress = {**trainer.progress.state(trainer.accelerator), "losses": gathered, **_counters(trainer)}
        progress |= {"losses_seen": trainer.guard.state(), "data": _fingerprints(trainer.run)}
        if args.should_save:
            state.save_to_json(str(folder / STATE))
            (folder / PROGRESS).write_text(json.dumps(progress), encoding="utf-8")
            if trainer.stream is not None:
                trainer.stream.save(folder)
    if args.push_to_hub:
        trainer._push_from_checkpoint(str(target))
    if args.should_save:
        trainer.run.emit("ftk_checkpoint_saved", step=state.global_step, path=target)
        _remove_old(trainer, target)
    return target


def _note_best(trainer: ExactTrainer, target: Path) -> None:
    state = trainer.state
    if state.best_global_step:
        best = target.with_name(f"checkpoint-{state.best_global_step}")
        if best == target or best.exists():
            state.best_model_checkpoint = str(best)


def _counters(trainer: ExactTrainer) -> dict[str, Any]:
    """What the Trainer keeps in attributes and does not save."""
    return {
        "total_loss": trainer._total_loss_scalar,
        "last_logged": trainer._globalstep_last_logged,
        "patience": [
            getattr(callback, "early_stopping_patience_counter", None)
            for callback in trainer.callback_handler.callbacks
        ],
    }


def restore(trainer: ExactTrainer, folder: Path) -> None:
    """Set the sums to what they were when ``folder`` was saved; called when transformers has set them to zero."""
    if trainer.stream is not None:
        trainer.stream.restore(folder)
    if trainer.loop is not None:
        trainer.loop.restore(folder)
    path = folder / PROGRESS
    if not path.exists():
        log.info("%s: has no %s (ftk did not write it), so sums over steps begin anew", folder, PROGRESS)
        return
    saved = json.loads(path.read_text(encoding="utf-8"))
    _refuse_other_rows(trainer.run, folder, saved.get("data", {}))
    trainer.progress.restore(saved, first=trainer.is_world_process_zero())
    trainer.guard.restore(saved.get("losses_seen", {}))
    losses = saved["losses"]
    if len(losses) == trainer.args.world_size:
        trainer._tr_loss.fill_(losses[trainer.args.process_index])
        trainer._globalstep_last_logged = saved["last_logged"]
    trainer._total_loss_scalar = saved["total_loss"]
    trainer._initial_global_step = 0
    for callback, patience in zip(trainer.callback_handler.callbacks, saved["patience"], strict=False):
        if patience is not None and hasattr(callback, "early_stopping_patience_counter"):
            callback.early_stopping_patience_counter = patience


def _fingerprints(run: Run) -> dict[str, str]:
    """Data set → what changes with its rows, as ftk-data has found it."""
    facts: dict[str, dict[str, Any]] = run.once("ftk_data.facts", dict)
    return {name: str(fact.get("fingerprint")) for name, fact in facts.items()}


def _refuse_other_rows(run: Run, folder: Path, before: Mapping[str, str]) -> None:
    """The place in the data, and so the rest of the run, means something only for the rows that it was noted for."""
    now = _fingerprints(run)
    changed = ", ".join(sorted(name for name in before if now.get(name, before[name]) != before[name]))
    if not changed:
        return
    said = f"{folder}: the rows of {changed} have changed since it was saved"
    if not run.value("resume_from_checkpoint"):
        raise CheckpointError(
            f"{said}. Put them back, choose another output_dir, or say --resume_from_checkpoint true to go on with them"
        )
    log.warning("%s; it goes on with them as they are", said)


def _remove_old(trainer: ExactTrainer, saved: Path) -> None:
    """Keep ``save_total_limit`` checkpoints: the one that was just written and verified, the best, the newest others.

    What has the highest number need not be the newest, nor whole: a run goes on from an earlier one when it is not.
    """
    limit = trainer.args.save_total_limit
    if not limit:
        return
    best = Path(trainer.state.best_model_checkpoint).name if trainer.state.best_model_checkpoint else ""
    ordered = checkpoints_of(trainer.run.output_dir)
    kept = [path for path in ordered if path == saved or path.name == best]
    earlier = [path for path in ordered if path not in kept and _step(path) < _step(saved)]
    kept += earlier[len(earlier) - max(limit - len(kept), 0) :]
    for path in ordered:
        if path not in kept:
            remove(path)


def remove(folder: Path) -> None:
    """Remove a checkpoint so that a kill leaves either all of it or a leftover that the next start clears away."""
    aside = folder.with_name(f"{rundir.ASIDE}old-{folder.name}")
    folder.replace(aside)
    shutil.rmtree(aside, ignore_errors=True)


def save_weights(trainer: ExactTrainer, folder: str, state_dict: dict[str, Any] | None = None) -> None:
    """The adapter or the model as ``from_pretrained`` reads it (safetensors), with the tokenizer.

    Checkpoints keep the weights in the layout of the model in memory. The published layout (a matrix for each expert)
    is what a result gets, but transformers cannot put it back into a model while training: it warns of missing keys
    and goes on with weights from before.
    The Trainer turns ``use_cache`` off in the model's config while it trains; what is saved has it as it was.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    model = trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)
    for companion in learning.of(trainer.run).companions if trainer.args.should_save else ():
        companion.save(model, Path(folder), state_dict)  # first: saving the model takes them out of the state_dict
    with _as_loaded(trainer):
        if hasattr(model, "peft_config"):
            arguments = _of_adapter(trainer.run, model)
            if len(model.peft_config) > 1:  # a reward's stands beside the one that learns
                arguments["selected_adapters"] = model.active_adapters
        else:
            arguments = {"save_original_format": "checkpoint-" not in Path(folder).name}
        model.save_pretrained(folder, state_dict=state_dict, **arguments)
        form = learning.of(trainer.run).form
        if form is not None and trainer.args.should_save:
            form.rewrite(model, Path(folder), checkpoint="checkpoint-" in Path(folder).name)
    if trainer.args.should_save and trainer.processing_class is not None:
        trainer.processing_class.save_pretrained(folder)
        if trainer.processing_class is trainer.run.processor and not hasattr(trainer.run.processor, "tokenizer"):
            trainer.run.tokenizer.save_pretrained(folder)


def restore_companions(trainer: ExactTrainer, folder: Path) -> None:
    """What has a file of its own, from a checkpoint into the model. DeepSpeed and FSDP have loaded it with the rest."""
    if trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled:
        return
    for companion in learning.of(trainer.run).companions:
        companion.restore(trainer.accelerator.unwrap_model(trainer.model), folder)


def configs_of(model: Any) -> list[Any]:
    """The configs of a model that say whether it keeps keys and values: its own and its language model's."""
    config = getattr(model, "config", None)
    if config is None:
        return []
    text = config.get_text_config(decoder=True)
    return [config] if text is config else [config, text]


@contextmanager
def _as_loaded(trainer: ExactTrainer) -> Iterator[None]:
    """The model's config as it was before the training."""
    for part, before in trainer.configs:
        if before is None:
            vars(part).pop("use_cache", None)
        else:
            part.use_cache = before
    try:
        yield
    finally:
        for part, _ in trainer.configs:
            part.use_cache = trainer.args.use_cache


def _of_adapter(run: Run, model: Any) -> dict[str, Any]:
    """Arguments that keep peft from asking the hub, in every save, whether the vocabulary was resized.

    The config that the model was loaded with lies in a folder or in the cache and answers that. Adapters of the
    embeddings themselves are left to peft, which needs no hub for them. Where single rows of them learn those are saved
    and no more: the others are the base model's, or made anew by the patch that has added them.
    """
    if any(getattr(config, "trainable_token_indices", None) for config in model.peft_config.values()):
        return {"save_embedding_layers": False}
    targets = {name for config in model.peft_config.values() for name in getattr(config, "target_modules", None) or ()}
    if targets & {"embed_tokens", "lm_head"}:
        return {}

    def resized() -> bool:
        try:
            loaded = AutoConfig.from_pretrained(run.model_path, local_files_only=True)
        except (OSError, ValueError):  # another revision or cache folder: not worth a question to the hub
            return False
        return getattr(loaded, "vocab_size", None) != getattr(model.config, "vocab_size", None)

    return {"save_embedding_layers": run.once("ftk_training.resized", resized)}
