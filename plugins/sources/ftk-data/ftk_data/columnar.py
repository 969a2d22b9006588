"""The readers of Parquet and Arrow files. pyarrow is imported when one is read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ftk_data.file_formats import Reader, Row

BATCH_BYTES = 16 << 20
"""About how much becomes Python objects at once: a row with images can be megabytes."""


class Columnar(Reader):
    """Parquet and Arrow, a batch of rows at a time."""

    counted = True

    def rows_from(self, index: int) -> Iterator[Row]:
        from pyarrow import ArrowException

        try:
            for batch in self._batches(index):
                step = max(1, min(1000, BATCH_BYTES * batch.num_rows // max(batch.nbytes, 1)))
                for start in range(0, batch.num_rows, step):
                    yield from batch.slice(start, step).to_pylist()
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
