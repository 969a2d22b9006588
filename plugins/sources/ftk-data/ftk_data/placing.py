"""Media in rendered rows: each placeholder that a chat template wrote becomes the tokens of its own medium."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from ftk import ConfigError, DataError, Media, Message, Segment

from ftk_data import cache, shards

if TYPE_CHECKING:
    from ftk.types import MediaEncoder

    from ftk_data.rendering import Row


def media_of(messages: Sequence[Message]) -> list[Media]:
    """The media of a conversation, in order."""
    shown = [message.content for message in messages if message.content.__class__ is not str]
    return [part for content in shown for part in content if isinstance(part, Media)]


def placed(rows: Sequence[Row], messages: Sequence[Message], encoder: MediaEncoder) -> list[Row]:
    """The rows with a segment for each medium.

    A row that ends before the conversation does has the media up to there; the last row, those up to the last answer
    that is trained. Raises DataError when there are more or
    fewer placeholders than media, as happens when somebody's words spell one.
    """
    media = media_of(messages)
    marks = _marks(encoder)
    if not media and not any(mark in segment.text for row in rows for segment in row for mark in marks):
        return list(rows)
    made = [_placed(row, media, encoder) for row in rows]
    found = [segment.media for segment in made[-1] if segment.media] if made else []
    if not len(media_of(messages[: _last_trained(messages) + 1])) <= len(found) <= len(media):
        raise DataError(
            f"has {_counted(media)}, and the chat template writes {len(found)} of them. "
            "Check the placeholders in its text and the template"
        )
    return made


def _marks(encoder: MediaEncoder) -> tuple[str, ...]:
    return tuple(encoder.placeholders.values())


def _placed(row: Row, media: Sequence[Media], encoder: MediaEncoder) -> Row:
    shown = list(_in_order(row, media, encoder.placeholders))
    texts = iter(zip(shown, encoder.expand(shown), strict=True))
    made: Row = []
    for segment in row:
        for number, part in enumerate(_between(segment, _marks(encoder))):
            if number:
                medium, text = next(texts)
                made.append(Segment(text, False, media=_kept(medium)))
            if part:
                made.append(segment._replace(text=part))
    return made


def _in_order(row: Row, media: Sequence[Media], placeholders: Mapping[str, str]) -> Iterator[Media]:
    """The medium of each placeholder of a row, the first image for the first image's and so on.

    Kinds that share a placeholder are taken in the order in which they stand in the conversation.
    """
    kinds = {mark: [kind for kind, other in placeholders.items() if other == mark] for mark in placeholders.values()}
    waiting = {mark: iter([one for one in media if one.kind in kinds[mark]]) for mark in kinds}
    for segment in row:
        for mark in () if segment.literal else _pattern(tuple(kinds)).findall(segment.text):
            medium = next(waiting[mark], None)
            if medium is None:
                raise DataError(f"has more {mark} placeholders than {' or '.join(kinds[mark])}s ({_counted(media)})")
            yield medium


def _between(segment: Segment, marks: tuple[str, ...]) -> Sequence[str]:
    """The text of a segment before, between and after the placeholders; in a literal one there are none."""
    return (segment.text,) if segment.literal else _pattern(marks).split(segment.text)


def _last_trained(messages: Sequence[Message]) -> int:
    """The number of the last answer that is trained, of the last message without one: a row may end after it."""
    trained = [i for i, one in enumerate(messages) if one.role == "assistant" and one.trained is not False]
    return trained[-1] if trained else len(messages) - 1


def _counted(media: Sequence[Media]) -> str:
    kinds = sorted({one.kind for one in media})
    return " and ".join(f"{sum(one.kind == kind for one in media)} {kind}(s)" for kind in kinds) or "no media"


@lru_cache(maxsize=32)
def _pattern(marks: tuple[str, ...]) -> re.Pattern[str]:
    """Splitting by it leaves the marks out; ``findall`` gives them."""
    return re.compile("|".join(re.escape(mark) for mark in sorted(marks, key=len, reverse=True)) or r"(?!)")


def _kept(medium: Media) -> Media:
    """The medium as a path or an address: bytes are put into a file of the cache, under their digest."""
    source = medium.source
    return Media(medium.kind, tuple(map(_in_a_file, source)) if isinstance(source, tuple) else _in_a_file(source))


def _in_a_file(source: str | bytes) -> str:
    if isinstance(source, str):
        return source
    path = cache.folder().with_name("media") / hashlib.sha256(source).hexdigest()
    if not path.exists():
        try:
            shards.put(path, source)
        except OSError as cause:
            raise ConfigError(
                f"{path}: a medium of the data cannot be kept: {cause.strerror}. Set FTK_CACHE to a folder with room"
            ) from cause
    return str(path)
