"""Text in the data that spells a control token, such as ``<|im_end|>`` in a user's words.

A tokenizer reads it as the token, so data can forge a turn. That is counted and warned of; ``split_special_tokens``
keeps it text: before rendering it is put between two characters of no meaning, and afterwards it becomes a segment of
its own that is encoded literally.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ftk import Message, Text

if TYPE_CHECKING:
    from ftk import Segment

    from ftk_data.rendering import Row

OPEN, CLOSE = "\ue0f4", "\ue0f5"
"""Private-use characters, which no text holds."""


class ControlTokens:
    """The control tokens of a tokenizer: those that it marks as special."""

    def __init__(self, tokens: Collection[str]) -> None:
        self.tokens = frozenset(token for token in tokens if token)

    @classmethod
    def of(cls, tokenizer: Any) -> ControlTokens:
        """Those of a transformers tokenizer."""
        added = getattr(tokenizer, "added_tokens_decoder", {})
        return cls([str(token) for token in added.values() if token.special])

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

    def are_in(self, messages: Sequence[Message]) -> bool:
        """Whether a conversation spells any of them."""
        search = self._starts.search
        for message in messages:
            content = message.content
            if isinstance(content, str) and not message.reasoning and not message.tool_calls:
                if search(content) and next(self.find(content), None):
                    return True
            elif any(next(self.find(text), None) for text in _texts(message)):
                return True
        return False

    def escaped(self, messages: Sequence[Message]) -> list[Message]:
        """The messages with each control token between two marks."""
        return [self._escaped_message(message) for message in messages]

    def _escaped_message(self, message: Message) -> Message:
        content: Any = message.content
        if isinstance(content, str):
            content = self._escape(content)
        else:
            content = tuple(Text(self._escape(part.text)) if isinstance(part, Text) else part for part in content)
        calls = tuple(replace(call, arguments=self._escape_json(call.arguments)) for call in message.tool_calls)
        reasoning = self._escape(message.reasoning) if message.reasoning else message.reasoning
        return replace(message, content=content, reasoning=reasoning, tool_calls=calls)

    def _escape_json(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._escape(value)
        if isinstance(value, dict):
            return {key: self._escape_json(one) for key, one in value.items()}
        return [self._escape_json(one) for one in value] if isinstance(value, list) else value

    def _escape(self, text: str) -> str:
        parts, done = [], 0
        for start, end in self.find(text):
            parts += [text[done:start], OPEN, text[start:end], CLOSE]
            done = end
        return "".join([*parts, text[done:]])


def _texts(message: Message) -> list[str]:
    texts = [message.text]
    if message.reasoning:
        texts.append(message.reasoning)
    for call in message.tool_calls:
        texts += (value for value in call.arguments.values() if isinstance(value, str))
    return texts


def unescaped(rows: Sequence[Row]) -> list[Row]:
    """Rows in which what stands between marks is literal, without the marks."""
    return [[part for segment in row for part in _split(segment)] for row in rows]


def _split(segment: Segment) -> Iterator[Segment]:
    if OPEN not in segment.text:
        yield segment
        return
    for number, part in enumerate(segment.text.split(OPEN)):
        token, _, rest = part.partition(CLOSE) if number else ("", "", part)
        if token:
            yield segment._replace(text=token, literal=True)
        if rest:
            yield segment._replace(text=rest)
