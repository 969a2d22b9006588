"""An answer while it comes: what of it is certain to be thought, and what to be said, before its end is there.

Calls are told at the end. Until then whatever may be their beginning is held back, as are the marks around a thought.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ftk import DataError, Message, ToolCall

from ftk_data.messages import THINK_CLOSE, THINK_OPEN
from ftk_data.tools import write_answer

if TYPE_CHECKING:
    from ftk.types import Tools

    from ftk_data.rendering import Renderer

PROBES = (ToolCall("alpha_71", {"x": 1}), ToolCall("beta_93", {"x": 1}))


@dataclass(frozen=True)
class Said:
    """A piece of an answer."""

    kind: Literal["reasoning", "content"]
    text: str


class Follower:
    """Reads an answer of a template piece by piece. The texts of all ``Said`` of a kind, joined, are in ``message``.

    template: what ``ftk_data.renderer(run)`` gives; without a reader that it shows (``reader``) the common marks count.
    """

    def __init__(self, template: Renderer, tools: Tools = ()) -> None:
        self.template, self.tools = template, tools
        self.text = ""
        self.message = Message("assistant")
        self._told = {"reasoning": "", "content": ""}
        reader: Any = getattr(template, "reader", None)
        opening, closing = reader.marks if reader else (THINK_OPEN, THINK_CLOSE)
        self._closing = tuple({closing.strip(), THINK_CLOSE.strip()} - {""})
        marks = {opening.strip(), THINK_OPEN.strip(), *self._closing} - {""}
        if tools:
            marks |= {_opening(reader.dialect) if reader and reader.dialect else ""}
        self._marks = tuple(marks)

    def push(self, piece: str) -> Iterator[Said]:
        """What is certain with one more piece of the answer's text."""
        self.text += piece
        read = self.template.read(self.text, self.tools)
        if read.reasoning and not read.content:
            yield from self._news("reasoning", _before(read.reasoning, self._closing).rstrip())
        elif not read.tool_calls:
            yield from self._news("reasoning", read.reasoning or "")
            yield from self._news("content", _before(read.text, self._marks).rstrip())

    def finish(self) -> Iterator[Said]:
        """The answer has ended: what was held back; ``message`` is the whole."""
        self.message = self.template.read(self.text, self.tools)
        yield from self._news("reasoning", self.message.reasoning or "")
        yield from self._news("content", self.message.text)

    def _news(self, kind: Literal["reasoning", "content"], text: str) -> Iterator[Said]:
        told = self._told[kind]
        if len(text) > len(told) and text.startswith(told):
            self._told[kind] = text
            yield Said(kind, text[len(told) :])


def _before(text: str, marks: Sequence[str]) -> str:
    """The text up to where one of the marks begins, or may do so with what comes next. An empty mark is everywhere."""
    ends = [text.find(mark) for mark in marks if mark in text]
    for mark in marks:
        most = min(len(mark) - 1, len(text))
        ends += [len(text) - size for size in range(most, 0, -1) if text.endswith(mark[:size])][:1]
    return text[: min(ends, default=len(text))]


def _opening(dialect: Any) -> str:
    """What every call of a dialect begins with, up to its first space; empty when two calls have nothing in common."""
    try:
        one, other = (write_answer(dialect, "", [probe]) for probe in PROBES)
    except DataError:
        return ""
    shared = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), 0)
    return re.split(r"\s", one[:shared].strip(), maxsplit=1)[0]
