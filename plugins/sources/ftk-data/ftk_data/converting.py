"""What converters share: columns and their types, tools and calls, and the media that placeholders stand for.

Whatever is wrong with a row is a DataError that names the column. :mod:`ftk_data.turns` reads conversations.
"""

from __future__ import annotations

import json
import os.path
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, cast

from ftk import DataError, DatasetEntry, Media, Text, ToolCall

MOST = 1e9
"""The largest weight of a turn, far above any that makes sense."""
MEDIA = {"image": "images", "video": "videos", "audio": "audios"}
PLACEHOLDER = re.compile("<(image|video|audio)>")


def cell(row: Mapping[str, Any], column: str) -> Any:
    """The value of a column. Raises DataError that names the columns there are."""
    try:
        return row[column]
    except KeyError:
        there = ", ".join(map(str, row)) or "none at all"
        hint = "Name the right one under columns, or the layout of such rows under formatting"
        raise DataError(f"has no column {column!r}. Its columns: {there}. {hint}") from None
    except TypeError:
        raise DataError(f"columns: expected the name of a column, found {short(column)}") from None


def optional(row: Mapping[str, Any], entry: DatasetEntry, name: str, default: str | None = None) -> tuple[str, Any]:
    """The column that an entry names for ``name`` and its value; ("", None) when there is none.

    An entry that does not name one gets ``default`` if the row has it and it serves for nothing else; one that names
    null has none. A row may lack a named column; if it has one that is spelt nearly so, DataError says that.
    """
    columns = entry.columns
    if name not in columns:
        if default is None or default not in row or default in columns.values():
            return "", None
        return default, row[default]
    column = columns[name]
    if column is None:
        return "", None
    try:
        if column in row:
            return column, row[column]
    except TypeError:
        raise DataError(f"columns.{name}: expected the name of a column, found {short(column)}") from None
    _refuse_misspelt(column, tuple(map(str, row)), tuple(str(one) for one in columns.values()))
    return "", None


@lru_cache(maxsize=256)
def _refuse_misspelt(column: str, there: tuple[str, ...], named: tuple[str, ...]) -> None:
    """Rows without an optional column are fine, a set without it because of a slip of the pen is not."""
    from difflib import get_close_matches

    close = get_close_matches(column, [one for one in there if one not in named], n=1, cutoff=0.88)
    if close:
        raise DataError(f"has no column {column!r}. Did you mean {close[0]!r}? Name it under columns, or null for none")


def text_of(row: Mapping[str, Any], column: str) -> str:
    """The text of a column that a row must have; null is empty. Raises DataError for anything else than text."""
    value = row.get(column) if type(column) is str else None
    return value if type(value) is str and value.isascii() else text(cell(row, column), column)


def text(value: Any, what: str) -> str:
    """A value as text; null is empty. Raises DataError for anything else."""
    if type(value) is str:
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError as cause:
                raise DataError(f"{what}: holds half of a surrogate pair at character {cause.start}") from cause
        return value
    if value is None:
        return ""
    raise DataError(f"{what}: expected text, found {short(value)}")


def pairs_of(value: Any, column: str) -> list[tuple[str, str]]:
    """Earlier questions and answers. Raises DataError for anything else than a list of pairs of texts."""
    value = spelt_out(value, column)
    pairs = value if isinstance(value, (list, tuple)) else [value]
    if not all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in pairs):
        raise DataError(f"{column}: expected pairs of a question and an answer, found {short(value)}")
    return [(text(question, column), text(answer, column)) for question, answer in pairs]


def truth(row: Mapping[str, Any], column: str) -> bool:
    """The value of a column of true and false, also as these words, for csv. Raises DataError for anything else."""
    value = cell(row, column)
    if isinstance(value, str):
        value = {"true": True, "false": False}.get(value.strip().lower(), value)
    if not isinstance(value, bool):
        raise DataError(f"{column}: expected true or false, found {short(value)}")
    return value


def short(value: Any) -> str:
    """A value for an error, with its type."""
    try:
        shown = repr(value[:40] if isinstance(value, (str, bytes, list)) else value)
    except (ValueError, RecursionError):  # a number of too many digits, or nested too deeply
        shown = "..."
    return f"{type(value).__name__} {shown if len(shown) <= 40 else shown[:37] + '...'}".replace("\n", " ")


def parsed(value: str, what: str) -> Any:
    """What JSON text says. Raises DataError."""
    try:
        return json.loads(value)
    except json.JSONDecodeError as cause:
        raise DataError(f"{what}: is no JSON: {cause.msg} at column {cause.colno}") from cause
    except (ValueError, RecursionError) as cause:
        raise DataError(f"{what}: is no JSON: {cause}") from cause


def spelt_out(value: Any, column: str) -> Any:
    """A value that is a list, as its JSON text has it where a file can hold nothing else. Raises DataError."""
    return parsed(value, column) if isinstance(value, str) and value.lstrip().startswith("[") else value


def check_writable(value: Any, what: str) -> None:
    """Raises DataError for what JSON cannot hold, which templates write: dates, bytes, half a surrogate pair."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as cause:
        raise DataError(f"{what}: cannot be written as JSON: {cause}") from cause


# Tools


def tools_of(value: Any, column: str) -> tuple[Mapping[str, Any], ...]:
    """Tool descriptions from JSON text or a list, in the OpenAI form. Raises DataError for anything else."""
    if not value:
        return ()
    return _tools_in_text(value, column) if type(value) is str else _tools(value, column)


def tools_in(row: Mapping[str, Any], entry: DatasetEntry) -> tuple[Mapping[str, Any], ...]:
    """The tool descriptions of a row, none when it has no column for them. Raises DataError."""
    column, value = optional(row, entry, "tools", "tools")
    return tools_of(value, column) if value else ()


@lru_cache(maxsize=1024)
def _tools_in_text(value: str, column: str) -> tuple[Mapping[str, Any], ...]:
    """The rows of a set have few different descriptions, and parsing them is most of the work on a row."""
    return _tools(parsed(value, column) if value.strip() else None, column)


def _tools(value: Any, column: str) -> tuple[Mapping[str, Any], ...]:
    tools = [value] if isinstance(value, Mapping) else value or ()
    if not isinstance(tools, (list, tuple)):
        raise DataError(f"{column}: expected a list of tool descriptions, found {short(value)}")
    return tuple(_tool(parsed(tool, column) if isinstance(tool, str) else tool, column) for tool in tools)


def _tool(value: Any, column: str) -> Mapping[str, Any]:
    """A description in the form ``{"type": "function", "function": {...}}``, which may come without the wrapping."""
    if not isinstance(value, Mapping):
        raise DataError(f"{column}: expected a list of tool descriptions, found {short(value)} in it")
    described: Mapping[str, Any] = value
    if "function" not in described:
        described = {"type": "function", "function": {key: one for key, one in value.items() if key != "type"}}
    function = described["function"]
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise DataError(f"{column}: expected tool descriptions with a name each, found {short(function)}")
    check_writable(described, column)
    return described


def call_of(value: Any, what: str) -> ToolCall:
    """A call from ``{"name": ..., "arguments": ...}``, also wrapped as the OpenAI API has it.

    Arguments may be an object or its JSON text; none at all is an empty object. Raises DataError for anything else.
    """
    if isinstance(value, str):
        value = parsed(value, what)
    if not isinstance(value, Mapping):
        raise DataError(f"{what}: expected a call with a name and arguments, found {short(value)}")
    function = value.get("function")
    if function is None:
        function = value
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not function["name"]:
        raise DataError(f"{what}: expected a call with a name and arguments, found {short(function)}")
    arguments = function.get("arguments", function.get("parameters"))
    if isinstance(arguments, str):
        arguments = parsed(arguments, f"{what}: arguments of {function['name']}") if arguments.strip() else {}
    if not isinstance(arguments, Mapping) and arguments is not None:
        raise DataError(f"{what}: arguments of {function['name']}: expected an object, found {short(arguments)}")
    number = value.get("id")
    if number is not None and not isinstance(number, str):
        raise DataError(f"{what}: id of {function['name']}: expected text, found {short(number)}")
    check_writable([function["name"], arguments, number], what)
    return ToolCall(function["name"], dict(arguments or {}), number or None)


def calls_of(value: Any, what: str) -> tuple[ToolCall, ...]:
    """Calls from a list, one call, or the JSON text of either. Raises DataError for anything else."""
    if isinstance(value, str) and value.strip():
        value = parsed(value, what)
    if not value:
        return ()
    return tuple(call_of(one, what) for one in (value if isinstance(value, (list, tuple)) else [value]))


def weight_of(turn: Mapping[str, Any], what: str) -> tuple[bool | None, float]:
    """Whether a turn says that it is trained, and the weight of its loss.

    ``train``, ``loss`` or ``training`` is true or false; ``weight``, ``loss_weight`` or ``loss_scale`` a number from 0,
    where 0 means not trained. Raises DataError for anything else.
    """
    trained, weight = None, 1.0
    for key in ("weight", "loss_weight", "loss_scale"):
        value = turn.get(key)
        if value is not None:
            if not isinstance(value, (int, float)) or not 0 <= value <= MOST:
                raise DataError(f"{what}: {key}: expected a number from 0, found {short(value)}")
            trained, weight = (None, float(value)) if value else (False, 1.0)
    for key in ("train", "loss", "training"):
        value = turn.get(key)
        if value is not None:
            if value not in (0, 1):
                raise DataError(f"{what}: {key}: expected true or false, found {short(value)}")
            trained = bool(value) and trained is not False
    return trained, weight


# Media


class MediaColumns:
    """The media of one row, taken in order by the placeholders of its texts: ``<image>``, ``<video>``, ``<audio>``."""

    def __init__(self, row: Mapping[str, Any], entry: DatasetEntry, *, unnamed: bool = False) -> None:
        """unnamed: take the columns ``images``, ``videos`` and ``audios`` of an entry that names none, too."""
        columns = entry.columns
        self.waiting: dict[str, list[Any]] = {}
        if columns or unnamed:
            for kind, key in MEDIA.items():
                if key in columns or (unnamed and key in row):
                    self.waiting[kind] = _listed(optional(row, entry, key, key)[1])
        self._folder = entry.folder

    def content(self, text: str) -> str | tuple[Text | Media, ...]:
        """The content of a message. A data set without media columns has its text as it is.

        Raises DataError when there are more placeholders than media.
        """
        if not self.waiting or not PLACEHOLDER.search(text):
            return text
        return tuple(self._parts(text))

    def _parts(self, text: str) -> Iterator[Text | Media]:
        for number, part in enumerate(PLACEHOLDER.split(text)):
            if number % 2:
                yield self.take(part)
            elif part:
                yield Text(part)

    def take(self, kind: str) -> Media:
        """The next medium of a kind. Raises DataError when there is none."""
        if not self.waiting.get(kind):
            raise DataError(f"has more <{kind}> placeholders than {MEDIA[kind]}")
        return self.medium(kind, self.waiting[kind].pop(0))

    def medium(self, kind: str, value: Any) -> Media:
        """A medium from a path, an address, bytes, or a mapping with one of them; a video also from a list of frames.

        Relative paths start from the folder of the entry. Raises DataError for anything else.
        """
        if kind == "video" and isinstance(value, (list, tuple)) and value:
            return Media("video", tuple(cast("str | bytes", self.medium("image", one).source) for one in value))
        for _ in range(2):
            if isinstance(value, Mapping):  # as the datasets library and the OpenAI API have it
                value = next((value[key] for key in ("bytes", "path", "url") if value.get(key)), None)
        if isinstance(value, bytes) and value:
            return Media(cast("Any", kind), value)
        if not isinstance(value, str) or not value or "\0" in value:
            raise DataError(f"{MEDIA[kind]}: expected a path or bytes as a medium, found {short(value)}")
        if not value.startswith(("data:", "http://", "https://")):
            value = os.path.join(self._folder, value.removeprefix("file://"))
        return Media(cast("Any", kind), value)

    def check_used(self) -> None:
        """Raises DataError when media are left that no placeholder has taken."""
        for kind, left in self.waiting.items():
            if left:
                raise DataError(f"has {len(left)} {MEDIA[kind]} more than <{kind}> placeholders")


def _listed(value: Any) -> list[Any]:
    if isinstance(value, (list, tuple)):
        return list(value)
    return [] if value is None or value == "" else [value]
