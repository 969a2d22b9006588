"""Sets of multiple-choice questions in a local folder, as MMLU, CMMLU and C-Eval are published.

``<task_dir>/<set>/`` holds CSV files, in folders or in a ``.zip``, each in a folder that is called as its split:
``dev/<subject>_dev.csv``, ``test/<subject>_test.csv``, ``val/<subject>.csv``, at any depth. ``mapping.json`` names the
subjects: ``{"<subject>": {"name": ..., "category": ...}}``; without it they are called as their files.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ftk import DataError

LETTERS = ("A", "B", "C", "D")
SPLITS = {"train": "dev", "dev": "dev", "validation": "val", "val": "val", "valid": "val", "test": "test"}
"""What a split is called → the folder of its files."""
POSITIONS = {name: place for place, name in enumerate(("question", *LETTERS, "answer"))}
"""Where the columns stand in files without a line of titles, as MMLU's are."""


class Question(NamedTuple):
    """``answer`` is the letter of the right choice."""

    text: str
    choices: tuple[str, ...]
    answer: str


@dataclass(frozen=True)
class Subject:
    """A file of questions. ``solved`` are those of the dev split; ``fingerprint`` changes with either."""

    key: str
    name: str
    category: str
    questions: tuple[Question, ...]
    solved: tuple[Question, ...]
    fingerprint: str


class QuestionSet:
    """The subjects of a task such as ``mmlu_test``. Raises DataError for what is not there or cannot be read."""

    def __init__(self, task: str, task_dir: str) -> None:
        self.name, _, split = task.rpartition("_")
        if split not in SPLITS or not self.name:
            raise DataError(
                f"task: {task}: expected a set and its split, as in mmlu_test, ceval_validation, cmmlu_test"
            )
        self.split, self.folder = SPLITS[split], Path(task_dir) / self.name
        if not self.folder.is_dir():
            raise DataError(f"{self.folder}: there is no such folder. task_dir: {task_dir} should hold {self.name}/")
        self._files = dict(_files(self.folder))
        self._names = _mapping(self.folder / "mapping.json")
        self.subjects = sorted(self._names) or sorted(stem for split, stem in self._files if split == self.split)
        if not self.subjects:
            raise DataError(f"{self.folder}: holds no questions; expected files such as {self.split}/SUBJECT.csv")

    def read(self, key: str, n_shot: int) -> Subject:
        """The questions of one subject, with as many solved ones."""
        where, raw = self._raw(self.split, key)
        solved_where, solved_raw = self._raw("dev", key) if n_shot else ("", b"")
        solved = tuple(_questions(solved_raw, solved_where))[:n_shot]
        named = self._names.get(key, {})
        digest = hashlib.sha256(raw + b"\0" + solved_raw).hexdigest()
        name, category = named.get("name", key.replace("_", " ")), named.get("category", "Other")
        return Subject(key, name, category, tuple(_questions(raw, where)), solved, digest)

    def _raw(self, split: str, key: str) -> tuple[str, bytes]:
        if (split, key) not in self._files:
            raise DataError(f"{self.folder}: has no file for {key}; expected {split}/{key}_{split}.csv")
        where, read = self._files[split, key]
        return where, read()


File = tuple[str, Callable[[], bytes]]


def _files(folder: Path) -> Iterator[tuple[tuple[str, str], File]]:
    """(split, subject) → what the file is called and how it is read. Files in folders go before those of archives."""
    for archive in sorted(folder.glob("*.zip")):
        try:
            names = zipfile.ZipFile(archive).namelist()
        except (zipfile.BadZipFile, OSError) as cause:
            raise DataError(f"{archive}: cannot be read: {cause}") from cause
        for name in names:
            if key := _key(PurePosixPath(name)):
                yield key, (f"{archive}/{name}", lambda archive=archive, name=name: zipfile.ZipFile(archive).read(name))
    for path in sorted(folder.rglob("*.csv")):
        if key := _key(PurePosixPath(path.relative_to(folder).as_posix())):
            yield key, (str(path), path.read_bytes)


def _key(path: PurePosixPath) -> tuple[str, str] | None:
    split = path.parent.name
    if path.suffix != ".csv" or split not in SPLITS.values() or "__MACOSX" in path.parts:
        return None
    return split, path.stem.removesuffix(f"_{split}")


def _mapping(path: Path) -> Mapping[str, Mapping[str, str]]:
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as cause:
        raise DataError(f"{path}: cannot be read: {cause}") from cause
    if not isinstance(content, dict) or not all(isinstance(one, dict) for one in content.values()):
        raise DataError(f'{path}: expected {{"SUBJECT": {{"name": ..., "category": ...}}}}')
    return content


def _questions(raw: bytes, where: str) -> Iterator[Question]:
    """The questions of a CSV file, with titles in any order or without. Raises DataError with the line."""
    try:
        lines = csv.reader(io.StringIO(raw.decode("utf-8-sig")), strict=True)
        rows = [(lines.line_num, row) for row in lines if any(cell.strip() for cell in row)]
    except (UnicodeDecodeError, csv.Error) as cause:
        raise DataError(f"{where}: cannot be read: {cause}") from cause
    places = POSITIONS
    if rows and "question" in (titles := [cell.strip().lower() for cell in rows[0][1]]):
        places = {name: titles.index(name.lower()) for name in POSITIONS if name.lower() in titles}
        rows = rows[1:]
    if lacking := POSITIONS.keys() - places.keys():
        raise DataError(f"{where}: has no column {', '.join(sorted(lacking))}; is it a split without answers?")
    for number, row in rows:
        if len(row) <= max(places.values()):
            raise DataError(f"{where}:{number}: has {len(row)} columns; expected question, A, B, C, D, answer")
        answer = row[places["answer"]].strip().upper()
        if answer not in LETTERS:
            raise DataError(f"{where}:{number}: answer: {answer!r} is none of A, B, C, D")
        yield Question(row[places["question"]], tuple(row[places[letter]] for letter in LETTERS), answer)
