"""Run directories as they lie on disk: ``run.json``, ``trainer_log.jsonl``, ``all_results.json`` and checkpoints."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from ftk import CheckpointError, rundir

LOG = "trainer_log.jsonl"
DEPTH = 5
"""How far below a folder runs are looked for."""
SILENT = 600.0
"""Seconds without a sign after which a run that says that it is running is doubted."""


@dataclass(frozen=True)
class PastRun:
    """One run directory. ``record`` is its ``run.json``."""

    folder: Path
    record: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.folder)

    @cached_property
    def lines(self) -> list[dict[str, Any]]:
        """The log; half a line, as a kill leaves it, is passed over."""
        try:
            text = (self.folder / LOG).read_text(encoding="utf-8")
        except OSError:
            return []
        parsed = (_parsed(line) for line in text.splitlines())
        return [line for line in parsed if "step" in line]

    @property
    def options(self) -> Mapping[str, Any]:
        return dict(self.record.get("options") or {})

    @property
    def chosen(self) -> Mapping[str, Sequence[str]]:
        return dict(self.record.get("chosen") or {})

    @cached_property
    def status(self) -> str:
        """As ``run.json`` has it; a run that was killed could not say so, and is silent."""
        status = str(self.record.get("status", "unknown"))
        if status == "running" and (silent := self.silent_seconds()) > SILENT:
            return f"silent for {span(silent)}"
        return status

    def silent_seconds(self) -> float:
        """Since the directory last changed."""
        times = [path.stat().st_mtime for path in (self.folder / LOG, self.folder / rundir.RECORD) if path.exists()]
        return max(0.0, time.time() - max(times, default=time.time()))

    @cached_property
    def metrics(self) -> dict[str, float]:
        """What the run reported at its end; before that the last values of its log."""
        found = dict(self.record.get("metrics") or {})
        if not found:
            for line in self.lines:
                found |= {key: value for key, value in line.items() if isinstance(value, (int, float))}
        return found

    @property
    def losses(self) -> list[float]:
        return [line["loss"] for line in self.lines if isinstance(line.get("loss"), (int, float))]

    @property
    def steps(self) -> tuple[int, int]:
        """Steps done and wanted, zeros when nothing was logged."""
        last = self.lines[-1] if self.lines else {}
        return int(last.get("step", 0)), int(last.get("total_steps", 0))

    @property
    def seconds(self) -> float:
        """Time spent training, in all processes of the run."""
        return float(self.metrics.get("train_runtime") or (self.lines[-1].get("seconds", 0.0) if self.lines else 0.0))

    @property
    def checkpoints(self) -> list[str]:
        found = [path.name for path in self.folder.glob("checkpoint-*") if path.name.partition("-")[2].isdigit()]
        return sorted(found, key=lambda name: int(name.partition("-")[2]))

    @property
    def method(self) -> str:
        """Stage and what learns, for instance ``sft lora``."""
        names = [*self.chosen.get("trainer", ()), *self.chosen.get("adapter", ())]
        return " ".join(names)


def find(folders: Iterable[str]) -> list[PastRun]:
    """The runs that the folders are or hold, by the time of their start. Raises CheckpointError when there are none."""
    folders = list(folders)
    found: dict[Path, PastRun] = {}
    for folder in folders:
        for path in _below(Path(folder)):
            record = rundir.read_record(path)
            if record is not None:
                found.setdefault(path.resolve(), PastRun(path, record))
    if not found:
        raise CheckpointError(
            f"{', '.join(folders)}: no run is there (no {rundir.RECORD}). Name a run directory, or a folder of some"
        )
    return sorted(found.values(), key=lambda run: (str(run.record.get("started", "")), run.name))


def _below(folder: Path) -> Iterator[Path]:
    """Folders with a record; what lies within a run directory is its own."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: there is no such folder")
    for place, names, files in os.walk(folder):
        depth = len(Path(place).relative_to(folder).parts)
        if rundir.RECORD in files:
            yield Path(place)
            names.clear()
        names[:] = sorted(name for name in names if depth < DEPTH and not name.startswith("."))


def _parsed(text: str) -> dict[str, Any]:
    try:
        line = json.loads(text)
    except ValueError:
        return {}
    return line if isinstance(line, dict) else {}


def span(seconds: float) -> str:
    """A time in two units at most: 45 s, 12 min, 3 h 05 min, 2 d 4 h."""
    minutes, hours, days = round(seconds / 60), int(seconds // 3600), int(seconds // 86400)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if hours < 1:
        return f"{minutes} min"
    if days < 1:
        return f"{hours} h {int(seconds // 60) % 60:02d} min"
    return f"{days} d {hours % 24} h"


def when(text: Any) -> str:
    """A time of ``run.json`` (UTC), to the minute, as the clock on the wall has it."""
    try:
        return datetime.fromisoformat(str(text)).astimezone().strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return ""
