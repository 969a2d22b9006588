"""What converters share: looking up columns, checking types, tools, and media placeholders."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from ftk import DataError, DatasetEntry, Media, Text

MEDIA = {"image": "images", "video": "videos", "audio": "audios"}
PLACEHOLDER = re.compile("<(image|video|audio)>")


def cell(row: Mapping[str, Any], column: str) -> Any:
    """The value of a column. Raises DataError that names the columns there are."""
    try:
        return row[column]
    except KeyError:
        there = ", ".join(map(str, row)) or "none at all"
        raise DataError(f"has no column {column!r}. Its columns: {there}. Name the right one under columns") from None


def text_of(row: Mapping[str, Any], column: str) -> str:
    """The text of a column; null is empty. Raises DataError for anything else than text."""
    value = cell(row, column)
    if value is None or isinstance(value, str):
        return value or ""
    raise DataError(f"{column}: expected text, found {short(value)}")


def short(value: Any) -> str:
    """A value for an error, with its type."""
    shown = repr(value)
    return f"{type(value).__name__} {shown if len(shown) <= 40 else shown[:37] + '...'}"


def tools_of(value: Any, column: str) -> tuple[Mapping[str, Any], ...]:
    """Tool descriptions from a JSON string or a list, in the OpenAI form. Raises DataError for anything else."""
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except json.JSONDecodeError as cause:
            raise DataError(f"{column}: is no JSON: {cause.msg} at column {cause.colno}") from cause
    tools = [value] if isinstance(value, dict) else value or ()
    if not isinstance(tools, Sequence) or isinstance(tools, str) or not all(isinstance(tool, dict) for tool in tools):
        raise DataError(f"{column}: expected a list of tool descriptions, found {short(value)}")
    return tuple(tool if "function" in tool else {"type": "function", "function": tool} for tool in tools)


class MediaColumns:
    """The media of one row, taken in order by the placeholders of its texts: ``<image>``, ``<video>``, ``<audio>``."""

    def __init__(self, row: Mapping[str, Any], entry: DatasetEntry) -> None:
        self._waiting: dict[str, list[Any]] = {}
        for kind, key in MEDIA.items():
            if key in entry.columns:
                value = cell(row, entry.columns[key])
                self._waiting[kind] = list(value) if isinstance(value, (list, tuple)) else [value] if value else []
        self._folder = Path(entry.folder)

    def content(self, text: str) -> str | tuple[Text | Media, ...]:
        """The content of a message. A data set without media columns has its text as it is.

        Raises DataError when there are more placeholders than media.
        """
        if not self._waiting or not PLACEHOLDER.search(text):
            return text
        return tuple(self._parts(text))

    def _parts(self, text: str) -> Iterator[Text | Media]:
        for number, part in enumerate(PLACEHOLDER.split(text)):
            if number % 2 == 0:
                if part:
                    yield Text(part)
            elif not self._waiting.get(part):
                raise DataError(f"has more <{part}> placeholders than {MEDIA[part]}")
            else:
                yield Media(cast("Any", part), self._source(self._waiting[part].pop(0)))

    def _source(self, value: Any) -> str | bytes:
        if isinstance(value, Mapping):  # as the datasets library stores it
            value = value.get("bytes") or value.get("path")
        if isinstance(value, str) and not value.startswith(("data:", "http://", "https://")):
            return str(self._folder / value)
        if isinstance(value, (str, bytes)):
            return value
        raise DataError(f"expected a path or bytes as a medium, found {short(value)}")

    def check_used(self) -> None:
        """Raises DataError when media are left that no placeholder has taken."""
        for kind, left in self._waiting.items():
            if left:
                raise DataError(f"has {len(left)} {MEDIA[kind]} more than <{kind}> placeholders")
