"""``split: train[:1000]``: a part of a data set's rows, in the words of the datasets library.

A boundary is a number of rows or a percentage, rounded to the closest row; negative ones count from the end.
Reference: "Slice splits" in that library's documentation, which itself reads the splits of its hub.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ftk import DataError, DatasetEntry

from ftk_data.files import FileRows

log = logging.getLogger("ftk.data")

SPLIT = re.compile(r"([^\[\]]+?)\s*(?:\[\s*(-?\d+)?(%)?\s*:\s*(-?\d+)?(%)?\s*\])?")
ONLY_HUBS = ("subset", "folder")
"""Fields of an entry that say something about a repository and nothing about a file."""


class Split(NamedTuple):
    """A split and which rows of it: each boundary as (number, whether it is a percentage), None for open."""

    name: str
    first: tuple[int, bool] | None = None
    last: tuple[int, bool] | None = None

    @property
    def whole(self) -> bool:
        return self.first is None and self.last is None


def split_of(entry: DatasetEntry) -> Split:
    """The ``split`` of an entry, ``train`` without one. Raises DataError when it is not written as one."""
    text = str(entry.fields.get("split") or "train").strip()
    match = SPLIT.fullmatch(text)
    if match is None or (match[3] and not match[2]) or (match[5] and not match[4]):
        raise DataError(
            f"{entry.name} ({entry.origin}): split: {text}: expected a name, with a part of it such as train[:1000] or "
            "train[10%:]"
        )
    name, first, percent_first, last, percent_last = match.groups()
    return Split(
        name, (int(first), bool(percent_first)) if first else None, (int(last), bool(percent_last)) if last else None
    )


def of_file(entry: DatasetEntry, rows: FileRows) -> FileRows | SlicedRows:
    """The rows of files, which are the split ``train``, or the part of them that the entry's ``split`` says.

    Raises DataError for another split.
    """
    for key in ONLY_HUBS:
        if entry.fields.get(key):
            log.warning("%s (%s): %s has no effect on files", entry.name, entry.origin, key)
    split = split_of(entry)
    if split.name != "train":
        raise DataError(
            f"{entry.name} ({entry.origin}): split: {split.name}: files have no splits but train. Name the file of "
            "that split, or take a part such as train[:1000]"
        )
    return sliced(rows, split)


def sliced(rows: FileRows, split: Split) -> FileRows | SlicedRows:
    """The part of some rows that a split says. Their number is only asked for where the part depends on it."""
    return rows if split.whole else SlicedRows(rows, split)


class SlicedRows:
    """Some successive rows of files."""

    def __init__(self, rows: FileRows, split: Split) -> None:
        self.rows, self.split = rows, split
        self._bounds: tuple[int, int] | None = None

    @property
    def bounds(self) -> tuple[int, int]:
        """The first row and the one after the last. Raises DataError when the rows cannot be counted."""
        if self._bounds is None:
            num = self.rows.num_rows()
            first, last = (
                num if bound is None else round(bound[0] * num / 100) if bound[1] else bound[0]
                for bound in (self.split.first or (0, False), self.split.last)
            )
            self._bounds = slice(first, last).indices(num)[:2]
        return self._bounds

    def __len__(self) -> int:
        first, last = self.bounds
        return max(0, last - first)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return self.at(0)

    def at(self, index: int) -> Iterator[Mapping[str, Any]]:
        return _Until(self.rows.at(self.bounds[0] + index), len(self) - index)

    def where(self, index: int) -> str:
        return self.rows.where(self.bounds[0] + index)

    def fingerprint(self) -> str:
        return f"{self.rows.fingerprint()}:{self.bounds}"


class _Until(Iterator[Mapping[str, Any]]):
    """So many rows, those that do not parse among them; no generator, because reading goes on after those."""

    def __init__(self, rows: Iterator[Mapping[str, Any]], num: int) -> None:
        self.rows, self.num = rows, num

    def __next__(self) -> Mapping[str, Any]:
        if self.num <= 0:
            raise StopIteration
        self.num -= 1
        return next(self.rows)
