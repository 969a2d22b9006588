"""``results.json``: written after every subject, so that an evaluation that was killed goes on with the next one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ftk import CheckpointError, ConfigError, rundir

from ftk_eval.question_sets import Subject

FILE = "results.json"
AVERAGE = "Average"


class Results:
    """What was answered. ``facts``: what answers depend on; subjects that were answered with others do not count.

    folder: where the file goes; None keeps nothing. Raises ConfigError when it holds answers made otherwise.
    """

    def __init__(self, folder: str | None, facts: Mapping[str, Any], *, anew: bool = False) -> None:
        self.path = Path(folder) / FILE if folder else None
        self.facts = rundir.plain(facts)
        self.subjects: dict[str, dict[str, Any]] = {}
        if self.path is None:
            return
        rundir.make(self.path.parent)
        if self.path.exists() and not anew:
            self._read(self.path)

    def _read(self, path: Path) -> None:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            facts, subjects = content["facts"], content["subjects"]
        except (OSError, ValueError, KeyError, TypeError) as cause:
            raise CheckpointError(f"{path}: cannot be read. --restart begins anew") from cause
        differing = sorted(key for key in self.facts.keys() | facts.keys() if self.facts.get(key) != facts.get(key))
        if differing:
            raise ConfigError(
                f"{path}: was made with another {', '.join(differing)}. Set another save_dir, or --restart begins anew"
            )
        self.subjects = subjects

    def has(self, subject: Subject) -> bool:
        return self.subjects.get(subject.key, {}).get("fingerprint") == subject.fingerprint

    def add(self, subject: Subject, chosen: Sequence[str]) -> None:
        right = sum(letter == question.answer for letter, question in zip(chosen, subject.questions, strict=True))
        self.subjects[subject.key] = {
            "name": subject.name, "category": subject.category, "num_questions": len(chosen), "num_right": right,
            "accuracy": right / len(chosen) if chosen else None, "answers": list(chosen),
            "fingerprint": subject.fingerprint,
        }  # fmt: skip
        self.write()

    def write(self) -> None:
        if self.path is not None:
            accuracy = {name: value for name, _, value in self.categories() if value is not None}
            content = {"accuracy": accuracy, "facts": self.facts, "subjects": self.subjects}
            rundir.write_text(self.path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")

    def categories(self) -> Iterator[tuple[str, int, float | None]]:
        """(category, questions, share of them that were answered right), the average over all questions first."""
        named = sorted({one["category"] for one in self.subjects.values()})
        for category in (AVERAGE, *named):
            of_it = [one for one in self.subjects.values() if category in (AVERAGE, one["category"])]
            total = sum(one["num_questions"] for one in of_it)
            yield category, total, sum(one["num_right"] for one in of_it) / total if total else None

    def table(self) -> Iterator[tuple[str, str, str]]:
        """Lines of a table: each subject, then the categories, then the average."""
        for key in sorted(self.subjects):
            one = self.subjects[key]
            yield one["name"], str(one["num_questions"]), _percent(one["accuracy"])
        average, *categories = self.categories()
        for name, total, share in (*categories, average):
            yield name, str(total), _percent(share)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}"
