"""What trackers share: a thread of their own, an id that a resumed run finds again, and what is told of a run.

A tracker's target returns ``track(run, NAME, connect)``. ``connect(told)`` opens its back end; that and everything
after happens in a thread, so training never waits for one. What goes wrong there is one warning.

The id stands in the run directory (``tracker_NAME.json``) beside the last step of each metric that was written. A
killed run goes on from a checkpoint, so it comes by some steps twice; with the same numbers, so the second time they
are left out. What a back end had not yet put on the disk when it was killed comes from ``trainer_log.jsonl``. No secret
leaves this module: options are told as ``run.json`` holds them.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ftk import FtkError, rundir
from ftk.run import facts

if TYPE_CHECKING:
    from ftk.run import Run

log = logging.getLogger("ftk.training")

PATIENCE = 60
"""Seconds that the end of a run waits for what is still to be written."""
WAITING = 10_000
"""Lines that may wait for a back end; what comes when it is that far behind is lost, and counted."""
LOG = "trainer_log.jsonl"
NOT_METRICS = frozenset({"step", "total_steps", "seconds"})
"""What its lines hold beside metrics."""
STATUSES = ("finished", "failed", "interrupted")


@dataclass(frozen=True)
class Told:
    """What a back end is told of a run.

    id: letters and digits, the same after a resume. resumed: whether it was told of this run before. name:
    ``run_name``, else what the run directory is called. project: the option. folder: the run directory, absolute.
    options: as in ``run.json``, secrets masked. made_with: ``plugins`` and ``libraries`` with versions, ``chosen``
    features, ``seed``.
    """

    id: str
    resumed: bool
    name: str
    project: str
    folder: Path
    options: Mapping[str, Any]
    made_with: Mapping[str, Any]

    @property
    def everything(self) -> dict[str, Any]:
        """One flat mapping: the options, and ``ftk/...`` for the rest, for back ends that have one place for all."""
        rest = {
            f"ftk/{group}/{name}": ", ".join(value) if isinstance(value, list) else value
            for group in ("chosen", "plugins", "libraries")
            for name, value in self.made_with[group].items()
        }
        return {**self.options, **rest, "ftk/seed": self.made_with["seed"]}


class Backend(Protocol):
    """Where metrics go: what ``connect`` returns. Called from one thread.

    It may have ``written() -> {metric: last step}``, what has reached its store, asked once after a resume; without it
    (or with None) everything that was given to ``log`` has.
    """

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write the metrics of an optimizer step, named as :func:`as_groups` does."""

    def close(self, status: str, error: str) -> None:
        """The run has ended as one of ``STATUSES``; ``error`` is empty but for ``failed``."""


Connect = Callable[[Told], Backend]
Line = tuple[int, Mapping[str, Any]]
"""A step and its metrics."""


def track(run: Run, name: str, connect: Connect) -> Background:
    """The running tracker around a back end, see the module."""
    memory = _Memory.of(run, name)
    told = Told(
        id=memory.id,
        resumed=memory.found,
        name=_option(run, "run_name") or run.output_dir.resolve().name,
        project=_option(run, "project") or "ftk",
        folder=run.output_dir.resolve(),
        options=rundir.resolved_options(run.plan),
        made_with={"seed": run.seed, **facts(run.plan)},
    )
    return Background(name, told, memory, connect, _logged(run.output_dir / LOG) if run.continues else ())


def _option(run: Run, key: str) -> Any:
    return run.value(key) if key in run.plan.registry.options else None


def as_groups(metrics: Mapping[str, float]) -> dict[str, float]:
    """``eval_loss`` → ``eval/loss`` and ``loss`` → ``train/loss``, the names that transformers gives trackers."""
    return {f"eval/{name[5:]}" if name.startswith("eval_") else f"train/{name}": one for name, one in metrics.items()}


def _logged(path: Path) -> list[Line]:
    """The lines that the run has logged so far, a half line of a killed process left out."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            line = json.loads(text)
            lines.append((int(line["step"]), {name: line[name] for name in line.keys() - NOT_METRICS}))
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return lines


@dataclass
class _Memory:
    """``tracker_NAME.json``: the id, and the last step of each metric that was written."""

    path: Path
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    steps: dict[str, int] = field(default_factory=dict)
    found: bool = False

    @classmethod
    def of(cls, run: Run, name: str) -> _Memory:
        """What the run that this one goes on with has written, else nothing."""
        path = run.output_dir / f"tracker_{name}.json"
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            return cls(path, kept["id"], kept["steps"], found=True) if run.continues else cls(path)
        except (OSError, ValueError, TypeError, KeyError):  # no tracker before, or a file that is none of ours
            return cls(path)

    def new(self, step: int, metrics: Mapping[str, Any]) -> dict[str, float]:
        """The numbers among them that were not written before, in groups."""
        numbers = {
            name: float(value)
            for name, value in metrics.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }
        return {name: value for name, value in as_groups(numbers).items() if step > self.steps.get(name, -1)}

    def note(self, step: int, metrics: Iterable[str]) -> None:
        self.steps |= dict.fromkeys(metrics, step)
        self.keep()

    def keep(self) -> None:
        rundir.write_text(self.path, json.dumps({"id": self.id, "steps": self.steps}) + "\n")


class Background:
    """A tracker whose ``log`` puts a line into a queue and returns. ``logged``: lines from before a resume."""

    def __init__(self, name: str, told: Told, memory: _Memory, connect: Connect, logged: Iterable[Line] = ()) -> None:
        self.name = name
        self.told = told
        self.memory = memory
        self.connect = connect
        self.logged = logged
        self.lost = 0
        self.waiting: queue.Queue[Line | None] = queue.Queue(WAITING)
        self.ending = ("", "")
        self.thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)
        self.thread.start()

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        try:
            self.waiting.put_nowait((step, dict(metrics)))
        except queue.Full:
            self.lost += 1

    def close(self, error: BaseException | None) -> None:
        """Wait until everything is written, at most ``PATIENCE`` seconds."""
        status = status_of(error)
        self.ending = (status, str(error) if status == "failed" else "")
        try:
            self.waiting.put(None, timeout=PATIENCE)
            self.thread.join(PATIENCE)
        except queue.Full:
            pass
        if self.thread.is_alive():
            log.warning("tracker %s: has not written everything after %d seconds, left alone", self.name, PATIENCE)
        elif self.lost:
            log.warning("tracker %s: %d log lines were lost", self.name, self.lost)

    def _work(self) -> None:
        backend = self._connected()
        while (line := self.waiting.get()) is not None:
            if backend is not None:
                self._write(backend, *line)
        if backend is not None:
            try:
                backend.close(*self.ending)
            except Exception as error:
                self._warn("could not be closed", error)

    def _connected(self) -> Backend | None:
        try:
            backend = self.connect(self.told)
            written = backend.written() if self.told.resumed and hasattr(backend, "written") else None
            self.memory.steps = self.memory.steps if written is None else dict(written)
            self.memory.keep()
        except Exception as error:
            self._warn("could not be started, nothing is written there", error)
            return None
        for line in self.logged:
            self._write(backend, *line)
        return backend

    def _write(self, backend: Backend, step: int, metrics: Mapping[str, Any]) -> None:
        new = self.memory.new(step, metrics)
        if not new:
            return
        try:
            backend.log(step, new)
            self.memory.note(step, new)
        except Exception as error:
            if not self.lost:
                self._warn(f"failed at step {step}, training goes on", error)
            self.lost += 1

    def _warn(self, what: str, error: Exception) -> None:
        said = " ".join(str(error).split()) or type(error).__name__
        log.warning("tracker %s: %s: %s", self.name, what, said[:300])


def status_of(error: BaseException | None) -> str:
    """One of ``STATUSES``. What a signal ends, with an exit code above 128, is interrupted and can go on."""
    if error is None:
        return "finished"
    stopped = not isinstance(error, Exception) or (isinstance(error, FtkError) and error.exit_code > 128)
    return "interrupted" if stopped else "failed"
