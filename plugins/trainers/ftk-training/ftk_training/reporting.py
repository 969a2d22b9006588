"""What a run says while it trains: ``trainer_log.jsonl``, trackers and observers, and the terminal."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftk import CheckpointError, rundir
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ftk_training import checkpoints, interrupting
from ftk_training.memory import peak_bytes
from ftk_training.quick_imports import quick_imports

with quick_imports():
    from transformers import TrainerCallback

if TYPE_CHECKING:
    from ftk.run import Run

    from ftk_training.trainer import ExactTrainer

LOG = "trainer_log.jsonl"


class Reporter(TrainerCallback):
    """Hears of every step from the Trainer. ``resumed`` is the checkpoint that the run goes on from, or None."""

    def __init__(self, trainer: ExactTrainer, run: Run, resumed: Path | None) -> None:
        self.trainer = trainer
        self.run = run
        self.resumed = resumed
        self.log_path = run.output_dir / LOG
        self.first = trainer.is_world_process_zero()
        self.logs_evaluations = True
        self.signals = interrupting.of(run)
        self.terminal: Terminal | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.resumed is not None:
            checkpoints.restore(self.trainer, self.resumed)
        self.trainer.progress.start()
        if self.first:
            if state.global_step:
                truncate(self.log_path, state.global_step)
            else:
                self.log_path.unlink(missing_ok=True)
            self.terminal = Terminal(state.global_step, state.max_steps, plain=bool(self.trainer.options.disable_tqdm))

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.trainer.in_epoch = True

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step >= state.max_steps and args.logging_strategy != "no":
            control.should_log = True  # the last loss is worth a line, whatever logging_steps
        if self.terminal:
            self.terminal.step(state.global_step)
        if self.signals.asked():
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.signals.agreed and not self.trainer.saving_after_epoch:
            raise interrupting.Interrupted(
                self.signals.agreed,
                f"stopped after step {state.global_step} of {state.max_steps}, checkpoint-{state.global_step} is "
                "saved. The same command goes on from there",
            )

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.trainer.in_epoch = False
        if self.trainer.saving_after_epoch:
            self.trainer.saving_after_epoch = False
            control.should_save = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        """Training losses, and evaluations while training; the summary at the end stands in ``all_results.json``."""
        if "train_loss" in logs or not self.first or not (self.logs_evaluations or "loss" in logs):
            return
        line = {"step": state.global_step, "total_steps": state.max_steps, **logs}
        line["seconds"] = round(self.trainer.progress.total_seconds(), 3)
        try:
            with self.log_path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as cause:
            raise CheckpointError(f"{self.log_path}: cannot be written: {cause.strerror}. {rundir.KEPT}") from cause
        self.run.log(state.global_step, logs)
        if self.terminal:
            shown = self.trainer.generating.reported if self.trainer.generating else ()
            memory = {"memory": peak_bytes(args.device)} if "loss" in logs else {}
            self.terminal.log(state.global_step, {**logs, **memory}, shown)

    def last_evaluation(self) -> dict[str, float]:
        """What was evaluated after the last step, empty when that has still to be done.

        It has when nothing was, or when the result is another checkpoint than the last step's; such a number belongs
        to no step, so the log does not get it.
        """
        state, best = self.trainer.state, self.trainer.args.load_best_model_at_end
        entries = [entry for entry in state.log_history if entry["step"] == state.global_step]
        found = next((entry for entry in reversed(entries) if "eval_loss" in entry), {})
        if found and not best:
            return {name: value for name, value in found.items() if name.startswith("eval_")}
        self.logs_evaluations = not best
        if self.first and not best:  # a run that was killed while it evaluated may have written this already
            truncate(self.log_path, state.global_step, lambda line: "loss" in line or line["step"] < state.global_step)
        return {}

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Put the terminal back in order; calling it twice is harmless."""
        if self.terminal:
            self.terminal.close()
            self.terminal = None


Line = dict[str, Any]


def truncate(path: Path, step: int, keep: Callable[[Line], bool] = lambda line: True) -> None:
    """Leave the lines up to ``step``: those after it, and a half line of a killed process, will be written again."""
    if not path.exists():
        return
    lines = [(text, _parsed(text)) for text in path.read_text(encoding="utf-8").splitlines()]
    kept = [text for text, line in lines if "step" in line and line["step"] <= step and keep(line)]
    rundir.write_text(path, "".join(f"{text}\n" for text in kept))


def _parsed(text: str) -> Line:
    try:
        line = json.loads(text)
    except ValueError:
        return {}
    return line if isinstance(line, dict) else {}


ORDER = ("loss", "learning_rate", "tokens_per_second", "num_trained_tokens", "memory")
"""What stands last in a line, in this order; metrics of a stage come before."""


class Terminal:
    """A progress bar on a terminal, a line for each log entry elsewhere."""

    def __init__(self, step: int, total: int, *, plain: bool = False) -> None:
        self.total = total
        self.began = (time.monotonic(), step)
        self.bar: Progress | None = None
        if sys.stderr.isatty() and not plain:
            columns = (TextColumn("step"), MofNCompleteColumn(), BarColumn(), TextColumn("{task.description}"))
            console = Console(stderr=True)
            self.bar = Progress(*columns, TimeRemainingColumn(), console=console, refresh_per_second=4)
            self.task = self.bar.add_task("", total=total, completed=step)
            self.bar.start()

    def step(self, step: int) -> None:
        if self.bar:
            self.bar.update(self.task, completed=step)

    def log(self, step: int, logs: dict[str, float], shown: Collection[str] = ()) -> None:
        """One line: loss, learning rate, tokens a second, trained tokens, most memory used, the time that is left.

        shown: metrics that are named, too.
        """
        ordered = sorted(logs.items(), key=lambda item: ORDER.index(item[0]) if item[0] in ORDER else -1)
        text = "  ".join(part for part in (_part(name, value, name in shown) for name, value in ordered) if part)
        if "loss" not in logs:
            text = f"evaluation  {text}"
        if self.bar:
            if "loss" in logs:
                self.bar.update(self.task, description=text)
            else:
                self.bar.console.print(f"step {step}  {text}", highlight=False)
            return
        print(f"step {step}/{self.total}  {text}{self._left(step)}", flush=True)

    def _left(self, step: int) -> str:
        seconds, first = time.monotonic() - self.began[0], self.began[1]
        if step <= first or step >= self.total:
            return ""
        left = round(seconds / (step - first) * (self.total - step))
        return f"  {left // 3600}:{left // 60 % 60:02d}:{left % 60:02d} left"

    def close(self) -> None:
        if self.bar:
            self.bar.stop()


def _part(name: str, value: float, shown: bool) -> str:
    if name == "learning_rate":
        return f"lr {value:.2e}"
    if name == "tokens_per_second":
        return f"{value:,.0f} tokens/s"
    if name == "num_trained_tokens" and value:
        return f"{_short(value)} trained"
    if name == "memory" and value:
        return f"{value / 2**30:.1f} GiB"
    known = name.startswith("eval_") and name.endswith(("loss", "accuracy", "reward"))
    if shown or known or name in ("loss", "reward"):
        return f"{name} {value:.4f}"
    return ""


def _short(count: float) -> str:
    """A large number in a few characters: 940, 12.3k, 4.56M."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:.0f}"
