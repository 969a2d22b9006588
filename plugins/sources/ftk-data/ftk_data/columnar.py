"""The readers of Parquet and Arrow files. pyarrow is imported when one is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ftk import DataError

from ftk_data.file_formats import Lost, Reader, Row

BATCH_BYTES = 16 << 20
"""About how much becomes Python objects at once: a row with images can be megabytes."""


class Columnar(Reader):
    """Parquet and Arrow, a batch of rows at a time."""

    counted = True

    def rows_from(self, index: int) -> Iterator[Row]:
        folder = str(self.place).removesuffix(self.place.name)
        return ArrowRows(self._small(index), lambda row: folder + self.where(index + row))

    def _small(self, index: int) -> Iterator[Any]:
        """Batches of a size that may become Python objects. Raises Lost."""
        from pyarrow import ArrowException

        try:
            for batch in self._batches(index):
                names = batch.schema.names
                if twice := sorted({name for name in names if names.count(name) > 1}):
                    raise Lost(f"{self.place}: names the column {twice[0]!r} twice")
                step = max(1, min(1000, BATCH_BYTES * batch.num_rows // max(batch.nbytes, 1)))
                yield from (batch.slice(start, step) for start in range(0, batch.num_rows, step))
        except (ArrowException, OSError) as cause:
            raise self.unreadable(cause) from cause

    def count(self) -> int:
        from pyarrow import ArrowException

        try:
            return self._count()
        except (ArrowException, OSError) as cause:
            raise self.unreadable(cause) from cause

    def _batches(self, index: int) -> Iterator[Any]:
        raise NotImplementedError

    def _count(self) -> int:
        raise NotImplementedError


class Parquet(Columnar):
    def _batches(self, index: int) -> Iterator[Any]:
        from pyarrow.parquet import ParquetFile

        with self.place.open() as source, ParquetFile(source) as file:
            for number in range(file.num_row_groups):
                group = file.metadata.row_group(number)
                if index >= group.num_rows:
                    index -= group.num_rows
                    continue
                size = max(1, min(1000, BATCH_BYTES * group.num_rows // max(group.total_byte_size, 1)))
                for batch in file.iter_batches(batch_size=size, row_groups=[number]):
                    if index < batch.num_rows:
                        yield batch.slice(index)
                    index = max(0, index - batch.num_rows)

    def _count(self) -> int:
        from pyarrow.parquet import ParquetFile

        with self.place.open() as source, ParquetFile(source) as file:
            return int(file.metadata.num_rows)


class Arrow(Columnar):
    """Both layouts: a stream, as the datasets library caches it, and a file."""

    def _batches(self, index: int) -> Iterator[Any]:
        for batch in self._all():
            if index < batch.num_rows:
                yield batch.slice(index)
            index = max(0, index - batch.num_rows)

    def _count(self) -> int:
        return sum(batch.num_rows for batch in self._all())

    def _all(self) -> Iterator[Any]:
        from pyarrow import ArrowInvalid, PythonFile, ipc, memory_map

        path = getattr(self.place, "path", None)
        with memory_map(str(path)) if path else PythonFile(self.place.open(), "r") as source:
            try:
                batches: Iterator[Any] = iter(ipc.open_stream(source))
            except ArrowInvalid:
                source.seek(0)
                file = ipc.open_file(source)
                batches = (file.get_batch(number) for number in range(file.num_record_batches))
            yield from batches


class ArrowRows(Iterator[Row]):
    """The rows of Arrow batches or tables. One with a value that Python has no form for, such as a text that is no
    UTF-8 or a date in the year 20,000, raises DataError, and reading goes on after it.

    where: number of a row, from 0 → where it stands.
    """

    def __init__(self, batches: Iterator[Any], where: Callable[[int], str]) -> None:
        self.batches, self.where = batches, where
        self.rows: Iterator[Row] = iter(())
        self.slow: Any = None
        self.lost: DataError | None = None
        self.number = 0

    def __next__(self) -> Row:
        while True:
            if self.slow is not None and self.slow.num_rows:
                first, self.slow = self.slow.slice(0, 1), self.slow.slice(1)
                return self._one(first)
            row = next(self.rows, None)
            if row is not None:
                self.number += 1
                return row
            self._open_next()

    def _open_next(self) -> None:
        try:
            if self.lost:
                raise self.lost
            batch = next(self.batches)
        except DataError as error:  # a generator is at its end after it has raised, and the rows are not
            self.lost = error
            raise
        try:
            self.rows, self.slow = iter(batch.to_pylist()), None
        except (ValueError, ArithmeticError, TypeError):  # one of its rows; which one is found out one by one
            self.slow = batch

    def _one(self, batch: Any) -> Row:
        self.number += 1
        try:
            row: Row = batch.to_pylist()[0]
        except (ValueError, ArithmeticError, TypeError) as cause:
            raise DataError(f"{self.where(self.number - 1)}: has a value without a form in Python: {cause}") from cause
        return row
