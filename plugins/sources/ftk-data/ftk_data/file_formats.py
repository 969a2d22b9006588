"""The readers of JSON Lines, JSON and plain text. They need the standard library alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, BinaryIO

from ftk import DataError

from ftk_data.offsets import LineIndex

if TYPE_CHECKING:
    from ftk_data.files import Place

Row = Mapping[str, Any]


class Lost(DataError):
    """The rest of a file cannot be read."""


class Reader:
    """The rows of one file. Reading raises DataError, with the file and the line, for a row that does not parse.

    counted: whether ``count`` needs no parsing.
    """

    counted = False

    def __init__(self, place: Place) -> None:
        self.place = place

    def rows_from(self, index: int) -> Iterator[Row]:
        """The rows from ``index`` (from 0) on. Raises Lost, now or later, when the file cannot be read."""
        raise NotImplementedError

    def count(self) -> int:
        """The number of rows, those that do not parse among them. Raises Lost."""
        raise NotImplementedError

    def where(self, index: int) -> str:
        """Where row ``index`` of this file stands."""
        return f"{self.place.name}, row {index + 1}"

    def unreadable(self, cause: BaseException) -> Lost:
        """The error for a file that the system does not give, or whose bytes are not what its name says."""
        if isinstance(cause, UnicodeDecodeError):
            return Lost(f"{self.place}: is not UTF-8: {cause.reason} at byte {cause.start}")
        said = getattr(cause, "strerror", None) or (str(cause).splitlines() or [type(cause).__name__])[0]
        return Lost(f"{self.place}: cannot be read: {said}")


class Lines(Reader):
    """JSON Lines: an object a line. Blank lines are passed over."""

    counted = True

    @cached_property
    def index(self) -> LineIndex:
        return LineIndex(self.place)

    def rows_from(self, index: int) -> Iterator[Row]:
        return _ParsedLines(self, index)

    def count(self) -> int:
        try:
            return self.index.num_rows
        except OSError as cause:
            raise self.unreadable(cause) from cause

    def where(self, index: int) -> str:
        return f"{self.place.name}:{self.index.line_of(index)}"

    def parse(self, number: int, line: bytes) -> Row:
        """The row of a line. Raises DataError."""
        try:
            row, end = _decode(text := line.decode())
            if type(row) is dict and (end == len(text) or text[end:].isspace()):
                return row
        except (ValueError, RecursionError):
            pass  # told below, or the line begins with a space
        try:
            row = json.loads(line.rstrip(b"\r\n").decode())
        except RecursionError as cause:
            raise DataError(f"{self.place}:{number}: is nested too deeply: {_shown(line)}") from cause
        except ValueError as cause:
            raise DataError(f"{self.place}:{number}: is no JSON: {_reason(cause)}: {_shown(line)}") from cause
        if type(row) is not dict:
            raise DataError(f"{self.place}:{number}: expected an object, found {type(row).__name__}: {_shown(line)}")
        return row


_decode = json.JSONDecoder().raw_decode
"""(value, end) of the JSON at the start of a text: a third quicker than ``json.loads`` for a short row."""


class _ParsedLines(Iterator[Row]):
    """Goes on after a line that does not parse."""

    def __init__(self, reader: Lines, index: int) -> None:
        self.reader, self.parse = reader, reader.parse
        self.file: BinaryIO | None = None
        self.number = 0
        try:
            self.file, self.number = reader.index.open(index)
        except OSError as cause:
            raise reader.unreadable(cause) from cause

    def __next__(self) -> Row:
        if self.file is None:
            raise StopIteration
        try:
            for line in self.file:
                self.number += 1
                if not line.isspace():
                    return self.parse(self.number, line)
        except OSError as cause:
            raise self.reader.unreadable(cause) from cause
        self.file.close()
        self.file = None
        raise StopIteration


def _reason(cause: ValueError) -> str:
    if isinstance(cause, UnicodeDecodeError):
        return f"not UTF-8 at byte {cause.start}"
    return f"{cause.msg}, column {cause.colno}" if isinstance(cause, json.JSONDecodeError) else str(cause)


def _shown(line: bytes) -> str:
    text = line[:400].decode("utf-8", "replace").strip()
    return text if len(text) <= 60 else f"{text[:40]} … {line[-40:].decode('utf-8', 'replace').strip()[-16:]}"


class Text(Lines):
    """A row ``{"text": line}`` for each line that is not blank."""

    def parse(self, number: int, line: bytes) -> Row:
        try:
            return {"text": line.decode().removesuffix("\n").removesuffix("\r")}
        except UnicodeDecodeError as cause:
            raise DataError(f"{self.place}:{number}: is not UTF-8 at byte {cause.start}: {_shown(line)}") from cause


class Json(Reader):
    """A JSON array of objects, or one object. A file that is JSON Lines in truth is read as that."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._parsed: list[Any] | None = None

    def rows_from(self, index: int) -> Iterator[Row]:
        return self._lines.rows_from(index) if self._lines else _Objects(self, self._array(), index)

    def count(self) -> int:
        return self._lines.count() if self._lines else len(self._array())

    def where(self, index: int) -> str:
        if self._lines:
            return self._lines.where(index)
        line = self._begins[index] if index < len(self._begins) else 0
        return f"{self.place.name}:{line}, row {index + 1}" if line else super().where(index)

    @cached_property
    def _lines(self) -> Lines | None:
        """The reader for JSON Lines when the file is that: its first line is an object of its own."""
        lines = Lines(self.place)
        try:
            with self.place.open() as file:
                first = next((line for line in file if line.strip(b"\xef\xbb\xbf \t\r\n")), b"")
        except OSError as cause:
            raise self.unreadable(cause) from cause
        first = first.removeprefix(b"\xef\xbb\xbf").lstrip()
        if not first.startswith(b"{"):
            return None
        try:
            lines.parse(1, first)
        except DataError:
            try:
                self._array()
            except Lost:
                return lines  # whose first line does not parse
            return None
        return lines

    def _array(self) -> list[Any]:
        """What the file holds, kept until an iterator over it has come to its end."""
        if self._parsed is None:
            text = self._text()
            try:
                parsed = json.loads(text) if text.strip() else []
            except json.JSONDecodeError as cause:
                raise Lost(f"{self.place}:{cause.lineno}:{cause.colno}: is no JSON: {cause.msg}") from cause
            except (ValueError, RecursionError) as cause:
                raise Lost(f"{self.place}: cannot be read: {cause}") from cause
            if isinstance(parsed, dict):
                parsed = [parsed]
            if not isinstance(parsed, list):
                raise Lost(f"{self.place}: expected an array of objects, found {type(parsed).__name__}")
            self._parsed = parsed
        return self._parsed

    def _text(self) -> str:
        try:
            with self.place.open() as file:
                return file.read().decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as cause:
            raise self.unreadable(cause) from cause

    def release(self) -> None:
        self._parsed = None

    @cached_property
    def _begins(self) -> list[int]:
        """The line on which each row begins. Only computed when a row turns out to be malformed."""
        text = self._text()
        if text.lstrip().startswith("{"):
            return [1]
        lines, line, counted = [], 1, 0
        position = text.find("[") + 1
        while match := BETWEEN.match(text, position):
            start = match.end()
            line += text.count("\n", counted, start)
            counted = start
            lines.append(line)
            _, position = _decode(text, start)
        return lines


BETWEEN = re.compile(r"[\s,]*(?=[^\s,\]])")


class _Objects(Iterator[Row]):
    """The rows of an array; goes on after one that is no object."""

    def __init__(self, owner: Json, rows: list[Any], index: int) -> None:
        self.owner, self.rows, self.index = owner, rows, index

    def __next__(self) -> Row:
        if self.index >= len(self.rows):
            self.rows = []
            self.owner.release()
            raise StopIteration
        row = self.rows[self.index]
        self.index += 1
        if not isinstance(row, dict):
            folder = str(self.owner.place).removesuffix(self.owner.place.name)
            where = folder + self.owner.where(self.index - 1)
            raise DataError(f"{where}: expected an object, found {type(row).__name__}")
        return row
