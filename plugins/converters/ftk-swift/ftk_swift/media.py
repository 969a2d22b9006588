"""Where the media of an ms-swift row stand: at placeholders, in addresses inside the text, or at the first question."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from ftk import Message
from ftk_data.converting import PLACEHOLDER, MediaColumns

ADDRESSES = {
    "image": re.compile("<img>(.+?)</img>"),
    "video": re.compile("<video>(.+?)</video>"),
    "audio": re.compile("<audio>(.+?)</audio>"),
}
"""A medium whose address stands in the text itself."""


def placed(conversations: Sequence[tuple[Message, ...]], media: MediaColumns) -> list[tuple[Message, ...]]:
    """The conversations with the media in them, taken in order through all of them.

    Media without a placeholder stand in front of the first question. Raises DataError when there are more placeholders
    than media, or no question to stand at.
    """
    columns = frozenset(media.waiting)
    messages = [_with_marks(message, media, columns) for conversation in conversations for message in conversation]
    if media.waiting:
        _mark_the_rest(messages, media)
        messages = [_filled(message, media) for message in messages]
        media.check_used()
    rest = iter(messages)
    return [tuple(next(rest) for _ in conversation) for conversation in conversations]


def _with_marks(message: Message, media: MediaColumns, columns: frozenset[str]) -> Message:
    """A message whose media stand in its text gets placeholders for them, and the media wait for those."""
    said = message.content
    if not isinstance(said, str) or "</" not in said:
        return message
    for kind, pattern in ADDRESSES.items():
        if kind not in columns and (found := pattern.findall(said)):
            media.waiting.setdefault(kind, []).extend(found)
            said = pattern.sub(f"<{kind}>", said)
    return message if said is message.content else replace(message, content=said)


def _mark_the_rest(messages: list[Message], media: MediaColumns) -> None:
    texts = [message.content for message in messages if isinstance(message.content, str)]
    marks = [kind for said in texts for kind in PLACEHOLDER.findall(said)]
    missing = "".join(f"<{kind}>" * (len(left) - marks.count(kind)) for kind, left in media.waiting.items())
    for number, message in enumerate(messages):
        if missing and message.role == "user" and isinstance(message.content, str):
            messages[number] = replace(message, content=missing + message.content)
            return


def _filled(message: Message, media: MediaColumns) -> Message:
    return replace(message, content=media.content(message.content)) if isinstance(message.content, str) else message
