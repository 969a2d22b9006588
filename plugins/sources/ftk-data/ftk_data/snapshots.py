"""What a hub has been downloaded to: which of its files are of a subset and a split."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from ftk import DataError, DatasetEntry

from ftk_data.files import FileRows, LocalFile, files_in, open_places
from ftk_data.slices import SlicedRows, sliced, split_of


def open_snapshot(entry: DatasetEntry, folder: Path) -> FileRows | SlicedRows:
    """The rows of a data set that a hub has been downloaded to, as its ``folder``, ``subset`` and ``split`` say.

    ``split`` may ask for a part, such as ``train[:1000]``. Raises DataError when nothing there matches,
    with what there is.
    """
    asked = {key: str(entry.fields[key]) for key in ("folder", "subset", "split") if entry.fields.get(key)}
    split = split_of(entry)
    inside = folder / asked.get("folder", "")
    names = [path.relative_to(inside).as_posix() for path in files_in(inside)] if inside.is_dir() else []
    chosen = of_split(of_subset(names, asked.get("subset")), split.name, other_allowed="split" not in asked)
    if not chosen:
        there = ", ".join(names[:8]) or "no files of rows"
        wanted = ", ".join(f"{key} {value}" for key, value in asked.items()) or f"split {split.name}"
        raise DataError(f"{entry.name}: nothing in the data set matches {wanted}. It has {there}")
    return sliced(open_places(entry.name, [LocalFile(inside / name) for name in chosen], str(inside)), split)


SPLITS = ("train", "training", "test", "testing", "eval", "evaluation", "validation", "valid", "val", "dev")


def of_subset(names: Sequence[str], subset: str | None) -> list[str]:
    """The files of a subset: those in a folder of its name, else those whose name has it as a word."""
    if not subset:
        return list(names)
    inside = [name for name in names if subset in PurePosixPath(name).parts[:-1]]
    return inside or [name for name in names if _has_word(PurePosixPath(name).name, subset)]


def of_split(names: Sequence[str], split: str, *, other_allowed: bool) -> list[str]:
    """The files of a split: those whose path has it as a word; without any, those that name no other split."""
    exact = [name for name in names if _stem(name) == split or split in PurePosixPath(name).parts[:-1]]
    found = exact or [name for name in names if _has_word(name, split)]
    if found or not (other_allowed or split == "train"):
        return found
    return [name for name in names if not any(_has_word(name, word) for word in SPLITS)]


def _stem(name: str) -> str:
    """``train`` of ``data/train-00000-of-00002.parquet``."""
    return re.sub(r"-\d{5}-of-\d{5}.*$", "", PurePosixPath(name).stem)


def _has_word(name: str, word: str) -> bool:
    return re.search(rf"(?<![a-z0-9]){re.escape(word.lower())}(?![a-z0-9])", name.lower()) is not None
