"""What a finished run leaves in its directory: weights, tokenizer, template, model card, metrics, loss curve."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftk import CheckpointError, rundir
from safetensors import SafetensorError

from ftk_training import card, checkpoints
from ftk_training.reporting import LOG

if TYPE_CHECKING:
    from ftk.run import Run

    from ftk_training.trainer import ExactTrainer


def name_template(run: Run, tokenizer: Any) -> None:
    """Give the tokenizer the chat template that the run trains with, so that every save brings it.

    A processor saves one, too, into the same file.
    """
    if run.plan.one("template") is not None:
        import ftk_data

        tokenizer.chat_template = ftk_data.renderer(run).jinja()
        if hasattr(run.processor, "chat_template"):
            run.processor.chat_template = tokenizer.chat_template


@contextmanager
def moved_in(run: Run) -> Iterator[Path]:
    """Fill a folder aside, then move its files into the run directory one by one, each in one step.

    ``run.json`` gets their names, so that ``overwrite_output_dir`` knows what is ours.
    Raises CheckpointError when the disk is full; what was there stays.
    """
    folder = run.output_dir
    aside = folder / f"{rundir.ASIDE}result"
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        yield aside
        files = sorted(path for path in aside.rglob("*") if path.is_file())
        for path in files:
            with path.open("rb") as file:
                os.fsync(file.fileno())
        for path in files:
            target = folder / path.relative_to(aside)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
    except (OSError, RuntimeError, SafetensorError) as cause:
        why = checkpoints.reason(cause, folder)
        raise CheckpointError(f"{folder}: the result cannot be written: {why}. {rundir.KEPT}") from cause
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    note_files(run, (path.relative_to(aside).as_posix() for path in files))


def note_files(run: Run, names: Iterable[str]) -> None:
    """Remember files of the run directory as ours, so that ``overwrite_output_dir`` may remove them."""
    ours = run.once("ftk_training.files", lambda: {LOG})
    ours.update(names)
    run.record(files=sorted(ours))


def save(run: Run, trainer: ExactTrainer) -> None:
    """Weights and tokenizer into the run directory, as ``from_pretrained`` reads them."""
    if trainer.args.world_size > 1:
        trainer.save_model(str(run.output_dir), _internal_call=True)  # each process may write a part, so in place
        trainer.accelerator.wait_for_everyone()
        return
    with moved_in(run) as aside:
        trainer.save_model(str(aside), _internal_call=True)


def report(run: Run, trainer: ExactTrainer, metrics: Mapping[str, float]) -> None:
    """Metrics, loss curve and model card into the run directory, and what to type next onto the terminal."""
    metrics = {name: metrics[name] for name in sorted(metrics)}
    lines = read_log(run.output_dir) if trainer.options.do_train else []
    with moved_in(run) as aside:
        _write_metrics(aside, metrics)
        if trainer.options.do_train:
            trainer.state.save_to_json(str(aside / "trainer_state.json"))
            (aside / "README.md").write_text(card.text(run, metrics, lines, used(run, trainer)), encoding="utf-8")
            if trainer.options.plot_loss and any("loss" in line for line in lines):
                from ftk_training.plot import draw_losses, draw_metrics  # matplotlib takes a second to import

                draw_losses(lines, aside / "training_loss.png")
                draw_metrics(lines, aside / "training_metrics.png")
    if trainer.options.do_train and trainer.args.push_to_hub:
        trainer.push_to_hub(commit_message="Result of ftk run")
    _say(run, trainer, metrics, lines)


def write_metrics(run: Run, metrics: Mapping[str, float]) -> None:
    """Only the metrics into the run directory."""
    with moved_in(run) as aside:
        _write_metrics(aside, metrics)


def _write_metrics(folder: Path, metrics: Mapping[str, float]) -> None:
    """The files that users of LLaMA-Factory look for."""
    parts: dict[str, dict[str, float]] = {"all": dict(metrics), "train": {}, "eval": {}, "predict": {}}
    for name, value in metrics.items():
        kind = name.partition("_")[0]
        parts[kind if kind in ("eval", "predict") else "train"][name] = value
    for name, values in parts.items():
        if values:
            (folder / f"{name}_results.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of ``trainer_log.jsonl``; none when nothing was logged."""
    path = folder / LOG
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def used(run: Run, trainer: ExactTrainer) -> str:
    """What to do with the result: the stage's loss says it (``use(run)``), else one talks to it."""
    say = getattr(trainer.loss, "use", None)
    return str(say(run)) if say else f"talk to it: ftk chat {run.output_dir}"


def _say(run: Run, trainer: ExactTrainer, metrics: Mapping[str, float], lines: list[dict[str, Any]]) -> None:
    losses = [line["loss"] for line in lines if "loss" in line]
    if losses:
        minutes, seconds = divmod(round(metrics["train_runtime"]), 60)
        print(
            f"trained {trainer.state.global_step} steps in {minutes}:{seconds:02d}, "
            f"loss {losses[0]:.4f} at first, {losses[-1]:.4f} at last"
        )
    answered = trainer.generating.reported if trainer.generating else ()
    found = [
        f"{name} {value:.4f}"
        for name, value in metrics.items()
        if (name.endswith(("_loss", "_accuracy")) and name.startswith("eval_")) or name in answered
    ]
    if found:
        print(f"evaluation: {', '.join(found)}")
    if trainer.options.do_train:
        adapter = run.plan.one("adapter")
        print(f"the {getattr(adapter, 'saves', 'model')} is in {run.output_dir}")
        print(used(run, trainer))
