"""Where the lines of a large text file begin, so that reading can start at any row without parsing those before.

A row is a line that is not blank. There is one entry for each mebibyte or so, and those of a large file are kept in
``$FTK_CACHE/offsets``, so that later processes find a row in constant time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zlib
from bisect import bisect_right
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

if TYPE_CHECKING:
    from ftk_data.files import Place

log = logging.getLogger("ftk.data")

STRETCH = 1 << 20
"""Bytes between two entries."""
BOM = b"\xef\xbb\xbf"


class Mark(NamedTuple):
    """A line that is not blank: its row (from 0), the byte where it begins, and how many lines stand before it."""

    row: int
    offset: int
    line: int


class LineIndex:
    """The sparse index of one file, made when it is first needed."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._made: tuple[list[Mark], int] | None = None
        self._last = Mark(0, 0, 0)

    @property
    def num_rows(self) -> int:
        return self._whole()[1]

    def open(self, row: int) -> tuple[BinaryIO, int]:
        """The file before the line of a row, and how many lines stand before there. Raises OSError."""
        file = self.place.open()
        return file, _skip(file, _last_up_to(row, self._whole()[0] if row else []), row).line

    def line_of(self, row: int) -> int:
        """The number (from 1) of the line of a row. Reads no further than that row. Raises OSError."""
        found = self._made or self._kept()
        mark = _last_up_to(row, found[0] if found else [])
        if mark.row <= self._last.row <= row:  # bad rows are asked for one after the other
            mark = self._last
        with self.place.open() as file:
            self._last = mark = _skip(file, mark, row)
            line = mark.line + 1
            while file.readline().isspace():
                line += 1
        return line

    def _whole(self) -> tuple[list[Mark], int]:
        if self._made is None:
            self._made = self._kept() or self._scanned()
        return self._made

    def _scanned(self) -> tuple[list[Mark], int]:
        marks: list[Mark] = []
        row = line = 0
        with self.place.open() as file:
            offset = _skip_bom(file)
            while stretch := file.read(STRETCH):
                stretch += file.readline()
                marks.append(Mark(row, offset, line))
                row += _num_rows(stretch)
                line += stretch.count(b"\n")
                offset += len(stretch)
        if len(marks) > 1:
            self._keep(marks, row)
        return marks, row

    # On disk.

    @property
    def _path(self) -> Path:
        home = Path(os.environ.get("FTK_CACHE") or Path.home() / ".cache" / "ftk")
        return home / "offsets" / f"{hashlib.sha256(str(self.place).encode()).hexdigest()[:32]}.json"

    def _kept(self) -> tuple[list[Mark], int] | None:
        """What an earlier process has found out about the file as it is now. A damaged note counts as none."""
        try:
            note = json.loads(self._path.read_text(encoding="utf-8"))
            if note["stamp"] != self.place.stamp() or note["check"] != _check(note["marks"], note["num_rows"]):
                return None
            return [Mark(*mark) for mark in note["marks"]], int(note["num_rows"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def _keep(self, marks: list[Mark], num_rows: int) -> None:
        note = {"stamp": self.place.stamp(), "num_rows": num_rows, "check": _check(marks, num_rows), "marks": marks}
        aside = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            aside.parent.mkdir(parents=True, exist_ok=True)
            aside.write_text(json.dumps(note), encoding="utf-8")
            aside.replace(self._path)
        except OSError as error:
            log.warning("%s: where its lines begin is not kept: %s", self.place, error)


def _check(marks: list[Mark], num_rows: int) -> int:
    return zlib.crc32(json.dumps([marks, num_rows]).encode())


def _num_rows(stretch: bytes) -> int:
    """How many of some whole lines are not blank."""
    lines = stretch.split(b"\n")
    return len(lines) - lines.count(b"") - sum(map(bytes.isspace, lines))


def _skip_bom(file: BinaryIO) -> int:
    """Go past a byte order mark at the start of a file; where that is."""
    if file.read(len(BOM)) == BOM:
        return len(BOM)
    file.seek(0)
    return 0


def _last_up_to(row: int, marks: list[Mark]) -> Mark:
    number = bisect_right(marks, row, key=lambda mark: mark.row)
    return marks[number - 1] if number else Mark(0, 0, 0)


def _skip(file: BinaryIO, mark: Mark, row: int) -> Mark:
    """Go from a mark to the end of the line before a row; blank lines may follow there."""
    if mark.offset:
        file.seek(mark.offset)
    at, offset, line = mark.row, mark.offset or _skip_bom(file), mark.line
    while at < row and (text := file.readline()):
        offset += len(text)
        line += 1
        at += not text.isspace()
    return Mark(at, offset, line)
