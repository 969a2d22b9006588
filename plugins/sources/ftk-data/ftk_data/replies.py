"""A model's answer taken apart: what it said, what it thought, what it calls. The reverse of writing an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ftk import DataError, FtkError, Message, ToolCall

from ftk_data.habits import Habits
from ftk_data.messages import opens
from ftk_data.templates import PROBE, Template
from ftk_data.tools import ToolFormat, read_answer

if TYPE_CHECKING:
    from ftk.types import Tools

PROBED: Tools = (
    {
        "type": "function",
        "function": {
            "name": "probe_7319",
            "description": "Probes.",
            "parameters": {
                "type": "object",
                "properties": {"text": {"type": "string"}, "number": {"type": "integer"}},
                "required": ["text", "number"],
            },
        },
    },
)
CALLS = (ToolCall("probe_7319", {"text": "a b", "number": 7}), ToolCall("probe_7319", {"text": "c", "number": 319}))


@dataclass(frozen=True)
class Reader:
    """Takes answers of one template apart.

    stop: the strings that end an answer. marks: what stands before and after reasoning. opened: prompts end with an
    open thought. lead and trail: what the template writes around an answer's text, up to its stop token.
    """

    stop: Sequence[str]
    marks: tuple[str, str]
    opened: bool = False
    lead: str = ""
    trail: str = ""
    dialect: ToolFormat | None = None

    def read(self, text: str, tools: Tools = ()) -> Message:
        reasoning, content = self.thought(self.ended(text))
        calls: tuple[ToolCall, ...] = ()
        if self.dialect:
            content, calls = read_answer(self.dialect, content, tools)
        return Message("assistant", content, reasoning=reasoning or None, tool_calls=calls)

    def ended(self, text: str) -> str:
        """The text without its stop token."""
        bare = text.rstrip()
        stop = next((stop for stop in self.stop if bare.endswith(stop)), "")
        return bare.removesuffix(stop).removesuffix(self.trail) if stop else text

    def thought(self, text: str) -> tuple[str, str]:
        """The reasoning in a text and what is beside it."""
        opening, closing = (mark.strip() for mark in self.marks)
        begins = text.lstrip().startswith(opening)
        if not (begins or self.opened):
            return "", text.removeprefix(self.lead)
        inside = text.lstrip().removeprefix(opening)
        reasoning, closed, content = inside.partition(closing)
        if not closed:
            return inside.strip(), ""
        return reasoning.strip(), content.lstrip("\n") if self.marks[1][-1:].isspace() else content


def reader_of(
    template: Template,
    habits: Habits,
    marks: tuple[str, str],
    stop: Sequence[str],
    thinking: Any,
    dialects: Sequence[ToolFormat],
) -> Reader:
    """The reader of a template's answers."""
    lead = "" if marks[0].strip() in habits.lead else habits.lead
    trail = habits.tail.partition(habits.stop)[0] if habits.stop else ""
    plain = Reader(stop, marks, _opens(template, marks[0].strip(), thinking), lead, trail)
    return Reader(stop, marks, plain.opened, lead, trail, _dialect(template, habits, plain, thinking, dialects))


def _opens(template: Template, opening: str, thinking: Any) -> bool:
    """Whether prompts end with what opens a thought."""
    try:
        prompt = template.render((Message("user", "?"),), generation=True, thinking=thinking).text
    except DataError:
        return False
    return opens(prompt, opening)


def _dialect(
    template: Template, habits: Habits, reader: Reader, thinking: Any, dialects: Sequence[ToolFormat]
) -> ToolFormat | None:
    """The dialect that reads the calls that the template writes, the first of those that read most of them."""
    if len(dialects) == 1:
        return dialects[0]
    best, most = None, 0
    answers = [(said, _written(template, habits, reader, said, thinking)) for said in ((CALLS[:1]), CALLS)]
    for dialect in dialects:
        reads = sum(bool(text) and _reads(dialect, text, said) for said, text in answers)
        if reads > most:
            best, most = dialect, reads
    return best


def _written(template: Template, habits: Habits, reader: Reader, calls: Sequence[ToolCall], thinking: Any) -> str:
    """An answer with calls as the template writes it after its prompt; empty when it refuses."""
    asked = (Message("user", PROBE),)
    try:
        prompt = template.render(asked, PROBED, generation=True, thinking=thinking).text
        full = template.render((*asked, Message("assistant", tool_calls=tuple(calls))), PROBED, thinking=thinking).text
    except DataError:
        return ""
    start = next((i for i, (a, b) in enumerate(zip(prompt, full, strict=False)) if a != b), len(prompt))
    return reader.thought(reader.ended(full[start:]))[1]


def _reads(dialect: ToolFormat, text: str, calls: Sequence[ToolCall]) -> bool:
    try:
        content, read = read_answer(dialect, text, PROBED)
    except (FtkError, ValueError, LookupError, TypeError, AttributeError):
        return False
    same = [(call.name, dict(call.arguments)) for call in read] == [(call.name, dict(call.arguments)) for call in calls]
    return same and not content.strip()
