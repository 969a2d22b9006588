"""Text in the data that spells a control token, such as ``<|im_end|>`` in a user's words.

A tokenizer reads it as the token, so data can forge a turn. That is counted and warned of; ``split_special_tokens``
keeps it text: before rendering it is put between two characters of no meaning, and afterwards it becomes a segment of
its own that is encoded literally.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ftk import Media, Message, Text

if TYPE_CHECKING:
    from ftk import Segment
    from ftk.types import Tools

    from ftk_data.rendering import Row

_SECRET = secrets.token_hex(8)
OPEN, CLOSE = f"\ue0f4{_SECRET}\ue0f6", f"\ue0f5{_SECRET}\ue0f6"
"""New in each process: no text holds them."""
BETWEEN = re.compile(f"{OPEN}((?:(?!{OPEN}|{CLOSE}).)*){CLOSE}", re.DOTALL)


class ControlTokens:
    """The control tokens of a tokenizer: those that it marks as special or has a name for, as for the end token."""

    def __init__(self, tokens: Collection[str]) -> None:
        self.tokens = frozenset(token for token in tokens if token)

    @classmethod
    def of(cls, tokenizer: Any) -> ControlTokens:
        """Those of a transformers tokenizer."""
        added = getattr(tokenizer, "added_tokens_decoder", {})
        return cls(
            {*(str(token) for token in added.values() if token.special), *map(str, tokenizer.all_special_tokens)}
        )

    @cached_property
    def _starts(self) -> re.Pattern[str]:
        """The first two characters of the tokens, which is nearly always enough to see that there is none."""
        firsts = sorted({token[:2] for token in self.tokens}, key=lambda first: (-len(first), first))
        return re.compile("|".join(map(re.escape, firsts)) or r"(?!)")

    @cached_property
    def _lengths(self) -> list[int]:
        return sorted({len(token) for token in self.tokens}, reverse=True)

    def find(self, text: str) -> Iterator[tuple[int, int]]:
        """(start, end) of each control token in a text, the longest where several start."""
        done = 0
        for match in self._starts.finditer(text):
            start = match.start()
            if start < done:
                continue
            for length in self._lengths:
                if text[start : start + length] in self.tokens:
                    done = start + length
                    yield start, done
                    break

    def are_spelt(self, text: str) -> bool:
        """Whether a text spells any of them."""
        return next(self.find(text), None) is not None

    def are_in(self, messages: Sequence[Message], tools: Tools = ()) -> bool:
        """Whether a conversation or what its tools are described with spells any of them."""
        search = self._starts.search
        for message in messages:
            content = message.content
            if content.__class__ is str and not message.reasoning and not message.tool_calls and not message.call_id:
                if search(content) and next(self.find(content), None):
                    return True
            elif any(map(self.are_spelt, _texts(message))):
                return True
        return bool(tools) and any(map(self.are_spelt, _strings(tools)))

    def escaped(self, messages: Sequence[Message], tools: Tools = ()) -> tuple[list[Message], Tools]:
        """The messages and tools with each control token between two marks."""
        return [self._escaped_message(message) for message in messages], self._escape_json(tools)

    def _escaped_message(self, message: Message) -> Message:
        content: Any = message.content
        if isinstance(content, str):
            content = self._escape(content)
        else:
            content = tuple(
                Text(self._escape(part.text)) if isinstance(part, Text) else part for part in _merged(content)
            )
        calls = tuple(
            replace(
                call,
                name=self._escape(call.name),
                arguments=self._escape_json(call.arguments),
                id=self._escape_json(call.id),
            )
            for call in message.tool_calls
        )
        reasoning = self._escape(message.reasoning) if message.reasoning else message.reasoning
        call_id = self._escape_json(message.call_id)
        return replace(message, content=content, reasoning=reasoning, tool_calls=calls, call_id=call_id)

    def _escape_json(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._escape(value)
        if isinstance(value, Mapping):
            return {self._escape_json(key): self._escape_json(one) for key, one in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(self._escape_json(one) for one in value)
        return value

    def _escape(self, text: str) -> str:
        parts, done = [], 0
        for start, end in self.find(text):
            parts += [text[done:start], OPEN, text[start:end], CLOSE]
            done = end
        return "".join([*parts, text[done:]])


def _texts(message: Message) -> Iterator[str]:
    yield message.text
    yield from _strings((message.reasoning, message.call_id))
    for call in message.tool_calls:
        yield from _strings((call.name, call.id, call.arguments))


def _strings(value: Any) -> Iterator[str]:
    """All texts of a JSON value, names of members included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from _strings(key)
            yield from _strings(one)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _strings(one)


def _merged(content: Iterable[Text | Media]) -> Iterator[Text | Media]:
    """The parts with neighbouring texts as one, as templates write them: a token may be spelt in two halves."""
    text = ""
    for part in content:
        if isinstance(part, Text):
            text += part.text
            continue
        if text:
            yield Text(text)
        text = ""
        yield part
    if text:
        yield Text(text)


def unescaped(rows: Sequence[Row]) -> list[Row]:
    """Rows in which what stands between marks is literal, without the marks."""
    return [[part for segment in row for part in _split(segment)] for row in rows]


def _split(segment: Segment) -> Iterator[Segment]:
    if OPEN not in segment.text and CLOSE not in segment.text:
        yield segment
        return
    for number, part in enumerate(BETWEEN.split(segment.text)):
        text = part.replace(OPEN, "").replace(CLOSE, "")  # a template may have taken a token apart
        if text:
            yield segment._replace(text=text, literal=number % 2 == 1)
