"""The content of a message: text, or a list of parts as the OpenAI API and its relatives write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ftk import DataError, Media, Text, ToolCall

from ftk_data.converting import MediaColumns, calls_of, short, text

MEDIA_PARTS: Mapping[str, str] = {
    "image": "image", "image_url": "image", "input_image": "image", "video": "video", "video_url": "video",
    "audio": "audio", "audio_url": "audio", "input_audio": "audio",
}  # fmt: skip
"""The type of a part → the kind of medium."""
TEXT_PARTS = ("text", "input_text", "output_text", "refusal")
REASONING_PARTS = ("reasoning", "thinking")
CALL_PARTS = ("tool_call",)
VALUE_KEYS = ("value", "content", "bytes", "path", "url", "data")
"""Where the value of a part may stand, beside under its type's name."""


class Content(NamedTuple):
    """What a turn says, what was thought before, and the calls in it."""

    said: str | tuple[Text | Media, ...]
    reasoning: str = ""
    calls: tuple[ToolCall, ...] = ()


def content_of(value: Any, what: str, media: MediaColumns) -> Content:
    """The content of a turn. Parts that are all text become one text. Raises DataError for what has no known form."""
    if not isinstance(value, (list, tuple)):
        return Content(media.content(text(value, f"{what}: content")))
    said: list[Text | Media] = []
    thoughts: list[str] = []
    calls: tuple[ToolCall, ...] = ()
    for part in value:
        kind = "text" if isinstance(part, str) else part.get("type") if isinstance(part, Mapping) else None
        if not isinstance(kind, str):
            raise DataError(f"{what}: content: expected parts with a type, found {short(part)}")
        if kind in TEXT_PARTS:
            shown = media.content(text(_value(part, kind), f"{what}: {kind}"))
            said += ([Text(shown)] if shown else []) if isinstance(shown, str) else shown
        elif kind in MEDIA_PARTS:
            said.append(_medium(part, kind, what, media))
        elif kind in REASONING_PARTS:
            thoughts.append(text(_value(part, kind), f"{what}: {kind}"))
        elif kind in CALL_PARTS:
            calls += calls_of(_value(part, kind), f"{what}: {kind}")
        else:
            known = ", ".join((*TEXT_PARTS, *MEDIA_PARTS, *REASONING_PARTS, *CALL_PARTS))
            raise DataError(f"{what}: content: a part of type {short(kind)} is not known. Known: {known}")
    if all(isinstance(part, Text) for part in said):
        return Content("".join(part.text for part in said if isinstance(part, Text)), "\n".join(thoughts), calls)
    return Content(tuple(said), "\n".join(thoughts), calls)


def _value(part: Any, kind: str) -> Any:
    """What a part holds: under its type's name, under ``text``, or where relatives of the API put it."""
    if isinstance(part, str):
        return part
    return next((part[key] for key in (kind, "text", *VALUE_KEYS) if part.get(key) is not None), None)


def _medium(part: Mapping[str, Any], kind: str, what: str, media: MediaColumns) -> Media:
    """The medium of a part; one without a source takes the next of its column."""
    value = next((part[key] for key in (kind, MEDIA_PARTS[kind], *VALUE_KEYS) if part.get(key) is not None), None)
    if value is None:
        return media.take(MEDIA_PARTS[kind])
    if isinstance(value, Mapping) and isinstance(value.get("data"), str):  # base64, with the format beside it
        value = f"data:audio/{value.get('format') or 'wav'};base64,{value['data']}"
    try:
        return media.medium(MEDIA_PARTS[kind], value)
    except DataError as error:
        raise DataError(f"{what}: {error}") from error.__cause__
