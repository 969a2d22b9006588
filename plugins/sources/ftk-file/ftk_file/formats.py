"""One reader for each file type. Nothing is imported but the standard library until a columnar file is read."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Any

from ftk import DataError

Row = Mapping[str, Any]


class Reader:
    """The rows of one file. Iterating raises DataError, with the file and the line, for what does not parse."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __iter__(self) -> Iterator[Row]:
        raise NotImplementedError

    def where(self, index: int) -> str:
        """Where row ``index`` (from 0) of this file stands."""
        return f"{self.path.name}, row {index + 1}"

    def text(self) -> str:
        """The whole file. Raises DataError when it cannot be read or is not UTF-8."""
        try:
            return self.path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as cause:
            raise DataError(f"{self.path}: is not UTF-8: {cause.reason} at byte {cause.start}") from cause
        except OSError as cause:
            raise DataError(f"{self.path}: cannot be read: {cause.strerror}") from cause


class Lines(Reader):
    """JSON Lines: an object a line. Empty lines are passed over."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._numbers: list[int] = []

    def __iter__(self) -> Iterator[Row]:
        self._numbers = []
        return _ParsedLines(self.path, self._numbers)

    def where(self, index: int) -> str:
        return f"{self.path.name}:{self._numbers[index] if index < len(self._numbers) else index + 1}"


class _ParsedLines(Iterator[Row]):
    """Goes on after a line that does not parse. ``numbers`` gets the line number of each row."""

    def __init__(self, path: Path, numbers: list[int]) -> None:
        self.path, self.numbers = path, numbers
        self.lines = _numbered(path)

    def __next__(self) -> Row:
        number, line = next(self.lines)
        self.numbers.append(number)
        try:
            row = json.loads(line)
        except ValueError as cause:
            raise DataError(f"{self.path}:{number}: is no JSON: {_reason(cause)}: {_shown(line)}") from cause
        if not isinstance(row, dict):
            raise DataError(f"{self.path}:{number}: expected an object, found {type(row).__name__}: {_shown(line)}")
        return row


def _numbered(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines that are not empty with their numbers. Only ``\\n`` ends a line: U+2028 may stand inside a string."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                if not line.isspace():
                    yield number, line.rstrip(b"\r\n")
    except OSError as cause:
        raise DataError(f"{path}: cannot be read: {cause.strerror}") from cause


def _reason(cause: ValueError) -> str:
    if isinstance(cause, UnicodeDecodeError):
        return f"not UTF-8 at byte {cause.start}"
    return f"{cause.msg}, column {cause.colno}" if isinstance(cause, json.JSONDecodeError) else str(cause)


def _shown(line: bytes) -> str:
    text = line.decode("utf-8", "replace").strip()
    return text if len(text) <= 60 else f"{text[:40]} … {text[-16:]}"


class Json(Lines):
    """A JSON array of objects. A file that is JSON Lines in truth is read as that."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._is_array = True

    def __iter__(self) -> Iterator[Row]:
        text = self.text()
        self._is_array = not text.lstrip().startswith("{")
        if not self._is_array:
            try:
                return iter([json.loads(text)])
            except json.JSONDecodeError:
                return super().__iter__()
        return self._array(text)

    def _array(self, text: str) -> Iterator[Row]:
        try:
            rows = json.loads(text) if text.strip() else []
        except json.JSONDecodeError as cause:
            raise DataError(f"{self.path}:{cause.lineno}:{cause.colno}: is no JSON: {cause.msg}") from cause
        if not isinstance(rows, list):
            raise DataError(f"{self.path}: expected an array of objects, found {type(rows).__name__}")
        return _Objects(self, rows)

    def where(self, index: int) -> str:
        if not self._is_array:
            return super().where(index)
        line = self._lines[index] if index < len(self._lines) else 0
        return f"{self.path.name}:{line}, row {index + 1}" if line else Reader.where(self, index)

    @cached_property
    def _lines(self) -> list[int]:
        """The line on which each row begins. Only computed when a row turns out to be malformed."""
        text, decoder = self.text(), json.JSONDecoder()
        lines, position, line = [], text.index("[") + 1, 1
        counted = 0
        while match := re.compile(r"[\s,]*(?=[^\s,\]])").match(text, position):
            start = match.end()
            line += text.count("\n", counted, start)
            counted = start
            lines.append(line)
            _, position = decoder.raw_decode(text, start)
        return lines


class _Objects(Iterator[Row]):
    """The rows of an array; goes on after one that is no object."""

    def __init__(self, owner: Json, rows: list[Any]) -> None:
        self.owner, self.rows = owner, enumerate(rows)

    def __next__(self) -> Row:
        index, row = next(self.rows)
        if not isinstance(row, dict):
            where = self.owner.path.with_name(self.owner.where(index))
            raise DataError(f"{where}: expected an object, found {type(row).__name__}")
        return row


class Csv(Reader):
    """Comma-separated values with a header line. Every value is text."""

    def __iter__(self) -> Iterator[Row]:
        rows = csv.reader(StringIO(self.text(), newline=""), strict=True)
        header = next(rows, [])
        return iter(self._rows(rows, header))

    def _rows(self, rows: Any, header: list[str]) -> list[Row]:
        made: list[Row] = []
        try:
            for values in rows:
                if values and len(values) != len(header):
                    raise DataError(
                        f"{self.path}:{rows.line_num}: has {len(values)} values for the {len(header)} columns of line 1"
                    )
                if values:
                    made.append(dict(zip(header, values, strict=True)))
        except csv.Error as cause:
            raise DataError(f"{self.path}:{rows.line_num}: is no CSV: {cause}") from cause
        return made


class Text(Reader):
    """A row ``{"text": line}`` for each line that is not empty."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._numbers: list[int] = []

    def __iter__(self) -> Iterator[Row]:
        lines = [(number, line) for number, line in enumerate(self.text().split("\n"), start=1) if line.strip()]
        self._numbers = [number for number, _ in lines]
        return ({"text": line.removesuffix("\r")} for _, line in lines)

    def where(self, index: int) -> str:
        return f"{self.path.name}:{self._numbers[index] if index < len(self._numbers) else index + 1}"


class Columnar(Reader):
    """Parquet and Arrow, a batch of rows at a time."""

    def __iter__(self) -> Iterator[Row]:
        from pyarrow import ArrowException

        try:
            yield from self._rows()
        except (ArrowException, OSError) as cause:
            raise DataError(f"{self.path}: cannot be read: {str(cause).splitlines()[0]}") from cause

    def _rows(self) -> Iterator[Row]:
        raise NotImplementedError


class Parquet(Columnar):
    def _rows(self) -> Iterator[Row]:
        from pyarrow.parquet import ParquetFile

        with ParquetFile(self.path) as file:
            for batch in file.iter_batches(batch_size=1000):
                yield from batch.to_pylist()


class Arrow(Columnar):
    """Both layouts: a stream, as the datasets library caches it, and a file."""

    def _rows(self) -> Iterator[Row]:
        from pyarrow import ArrowInvalid, ipc, memory_map

        with memory_map(str(self.path)) as source:
            try:
                reader = ipc.open_stream(source)
                batches = iter(reader)
            except ArrowInvalid:
                source.seek(0)
                file = ipc.open_file(source)
                batches = (file.get_batch(number) for number in range(file.num_record_batches))
            for batch in batches:
                yield from batch.to_pylist()


FORMATS = {
    ".arrow": Arrow,
    ".csv": Csv,
    ".json": Json,
    ".jsonl": Lines,
    ".parquet": Parquet,
    ".txt": Text,
}
"""The reader of each file type, by the end of the file's name."""
