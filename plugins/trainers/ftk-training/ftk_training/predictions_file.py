"""``generated_predictions.jsonl``: appended to in order while prompts are answered, so that a kill loses one batch.

What the lines were made with stands beside it, in ``generated_predictions.state.json``; lines made otherwise are never
mixed with new ones.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ftk import CheckpointError, ConfigError, rundir

from ftk_training.prediction import Prediction

FILE = "generated_predictions.jsonl"


class PredictionsFile:
    """The answers of one data set by one model.

    facts: what an answer depends on, name → value. Lines that are there count when they were made with the same.
    """

    def __init__(self, path: Path, facts: Mapping[str, Any]) -> None:
        self.path, self.facts = path, rundir.plain(facts)
        self.state = path.with_suffix(".state.json")
        self.predictions: list[Prediction] = []
        self._size = 0

    def open(self, multiple: int, *, anew: bool = False) -> int:
        """How many answers are there already, a multiple of ``multiple`` or all; the rest of a batch is made again.

        A half-written last line is dropped. anew: begin at the beginning whatever is there.
        Raises ConfigError when the lines were made with other settings, CheckpointError when nothing can be written.
        """
        self.predictions = [] if anew or not self.path.exists() else self._read()
        if len(self.predictions) < self.facts.get("prompts", 0):
            del self.predictions[len(self.predictions) // multiple * multiple :]
        rundir.make(self.path.parent)
        rundir.write_text(self.path, "".join(map(_line, self.predictions)))
        self._size = self.path.stat().st_size
        rundir.write_text(self.state, json.dumps(self.facts, indent=2, ensure_ascii=False) + "\n")
        return len(self.predictions)

    def append(self, predictions: Sequence[Prediction]) -> None:
        """Write the next answers.

        Raises CheckpointError when the disk is full, what was written stays; and when another process writes, too.
        """
        try:
            with self.path.open("a", encoding="utf-8") as file:
                if file.tell() != self._size:
                    raise CheckpointError(f"{self.path}: another process has written into it. End that one first")
                file.write("".join(map(_line, predictions)))
                self._size = file.tell()
        except OSError as cause:
            raise CheckpointError(f"{self.path}: cannot be written: {cause.strerror}. {rundir.KEPT}") from cause
        self.predictions += predictions

    def _read(self) -> list[Prediction]:
        try:
            before = json.loads(self.state.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            before = {}
        found = [_parsed(line) for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines(True)]
        whole = found.index(None) if None in found else len(found)
        if whole and before != self.facts:
            names = [name for name in {**before, **self.facts} if before.get(name) != self.facts.get(name)]
            raise ConfigError(
                f"{self.path}: holds answers that were made with another {', '.join(names)}. Move it away, write "
                "elsewhere, or start anew (ftk predict --restart; ftk run --overwrite_output_dir true)"
            )
        return [one for one in found[:whole] if one is not None]


def _line(prediction: Prediction) -> str:
    return json.dumps(prediction._asdict(), ensure_ascii=False) + "\n"


def _parsed(line: str) -> Prediction | None:
    """None for a line that was not written to its end."""
    try:
        return Prediction(**json.loads(line)) if line.endswith("\n") else None
    except (ValueError, TypeError):
        return None
