"""Media in rendered rows: each placeholder that a chat template wrote becomes the tokens of its own medium."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from ftk import DataError, Media, Message, Segment

from ftk_data import cache, shards

if TYPE_CHECKING:
    from ftk.types import MediaEncoder

    from ftk_data.rendering import Row


def media_of(messages: Sequence[Message]) -> list[Media]:
    """The media of a conversation, in order."""
    contents = (message.content for message in messages if isinstance(message.content, tuple))
    return [part for content in contents for part in content if isinstance(part, Media)]


def placed(rows: Sequence[Row], messages: Sequence[Message], encoder: MediaEncoder) -> list[Row]:
    """The rows with a segment for each medium.

    A row that ends before the conversation does has the media up to there. Raises DataError when there are more or
    fewer placeholders than media, as happens when somebody's words spell one.
    """
    media = media_of(messages)
    if not media and not any(mark in segment.text for row in rows for segment in row for mark in _marks(encoder)):
        return list(rows)
    made = [_placed(row, media, encoder) for row in rows]
    found = [segment.media for segment in made[-1] if segment.media] if made else []
    if len(found) != len(media):
        raise DataError(
            f"has {_counted(media)}, and the chat template writes {len(found)} of them. "
            "Check the placeholders in its text and the template"
        )
    return made


def _marks(encoder: MediaEncoder) -> Sequence[str]:
    return tuple(encoder.placeholders.values())


def _placed(row: Row, media: Sequence[Media], encoder: MediaEncoder) -> Row:
    shown = list(_in_order(row, media, encoder.placeholders))
    texts = iter(zip(shown, encoder.expand(shown), strict=True))
    made: Row = []
    for segment in row:
        for number, part in enumerate(_pattern(_marks(encoder)).split(segment.text)):
            if number:
                medium, text = next(texts)
                made.append(Segment(text, False, media=_kept(medium)))
            if part:
                made.append(segment._replace(text=part))
    return made


def _in_order(row: Row, media: Sequence[Media], placeholders: Mapping[str, str]) -> Iterator[Media]:
    """The medium of each placeholder of a row, the first image for the first image's and so on."""
    waiting = {kind: iter([one for one in media if one.kind == kind]) for kind in placeholders}
    kinds = {mark: kind for kind, mark in placeholders.items()}
    for segment in row:
        for mark in _pattern(tuple(kinds)).findall(segment.text):
            medium = next(waiting[kinds[mark]], None)
            if medium is None:
                raise DataError(f"has more {mark} placeholders than {kinds[mark]}s ({_counted(media)})")
            yield medium


def _counted(media: Sequence[Media]) -> str:
    kinds = sorted({one.kind for one in media})
    return " and ".join(f"{sum(one.kind == kind for one in media)} {kind}(s)" for kind in kinds) or "no media"


@lru_cache(maxsize=32)
def _pattern(marks: tuple[str, ...]) -> re.Pattern[str]:
    """Splitting by it leaves the marks out; ``findall`` gives them."""
    return re.compile("|".join(re.escape(mark) for mark in sorted(marks, key=len, reverse=True)))


def _kept(medium: Media) -> Media:
    """The medium as a path or an address: bytes are put into a file of the cache, under their digest."""
    if isinstance(medium.source, str):
        return medium
    path = cache.folder().with_name("media") / hashlib.sha256(medium.source).hexdigest()
    if not Path(path).exists():
        shards.put(path, medium.source)
    return Media(medium.kind, str(path))
