"""The reader of comma-separated values."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from io import TextIOWrapper

from ftk import DataError

from ftk_data.file_formats import Lost, Reader, Row


class Csv(Reader):
    """Comma-separated values with a header line. Every value is text."""

    def rows_from(self, index: int) -> Iterator[Row]:
        return _Records(self, index)

    def count(self) -> int:
        num, rows = 0, _Records(self, 0)
        while rows.values() is not None:
            num += 1
        return num


class _Records(Iterator[Row]):
    """Goes on after a record of another width."""

    def __init__(self, owner: Csv, index: int) -> None:
        self.owner = owner
        csv.field_size_limit(sys.maxsize)  # the default refuses a text of 128 KiB
        try:
            self.file = TextIOWrapper(owner.place.open(), encoding="utf-8-sig", newline="")
        except OSError as cause:
            raise owner.unreadable(cause) from cause
        self.rows = csv.reader(self.file, strict=True)
        self.header = self.values() or []
        twice = sorted({name for name in self.header if self.header.count(name) > 1})
        if twice:
            raise Lost(f"{owner.place}:1: names the column {twice[0]!r} twice")
        for _ in range(index):
            if self.values() is None:
                break

    def values(self) -> list[str] | None:
        """The next record that is not empty, None after the last. Raises Lost."""
        try:
            for values in self.rows:
                if values:
                    return values
        except csv.Error as cause:
            raise Lost(f"{self.owner.place}:{self.rows.line_num}: is no CSV: {cause}") from cause
        except (OSError, UnicodeDecodeError) as cause:
            raise self.owner.unreadable(cause) from cause
        self.file.close()
        self.rows = csv.reader(())
        return None

    def __next__(self) -> Row:
        values = self.values()
        if values is None:
            raise StopIteration
        if len(values) != len(self.header):
            raise DataError(
                f"{self.owner.place}:{self.rows.line_num}: has {len(values)} values for the "
                f"{len(self.header)} columns of line 1"
            )
        return dict(zip(self.header, values, strict=True))
