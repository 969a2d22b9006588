"""A model's answer taken apart: what it said, what it thought, what it calls. The reverse of writing an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ftk import DataError, FtkError, Message, ToolCall

from ftk_data.answers import Finder
from ftk_data.messages import THINK_CLOSE, THINK_OPEN, opens
from ftk_data.templates import ASKED, Template, Turns
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
CALLS = (ToolCall("probe_7319", {"text": "a b", "number": 7}), ToolCall("probe_7319", {"text": '"\n}', "number": 319}))
SAID = tuple(
    Message("assistant", content, tool_calls=calls)
    for content, calls in (("", CALLS[:1]), ("", CALLS), ("A", CALLS[1:]))
)
"""Answers that a dialect has to read as the template writes them."""


@dataclass(frozen=True)
class Reader:
    """Takes answers of one template apart.

    stop: the strings that end an answer. marks: what stands before and after reasoning, beside the common ones. opened:
    prompts end with an open thought. opens: some do, when asked. lead and trail: what the template writes around an
    answer's text, up to its stop token.
    """

    stop: Sequence[str]
    marks: tuple[str, str]
    opened: bool = False
    opens: bool = False
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
        bare = text.removeprefix(self.lead)
        for said, (opening, closing) in ((text, self.marks), (bare, (THINK_OPEN, THINK_CLOSE))):
            inside = said.lstrip().removeprefix(opening.strip())
            begins = inside != said.lstrip()
            reasoning, closed, content = inside.partition(closing.strip())
            if closed and (begins or (self.opens and opening.strip() not in reasoning)):
                content = content.lstrip("\n") if closing[-1:].isspace() else content
                if not reasoning.strip() and content.lstrip().startswith(opening.strip()):
                    return self.thought(content)  # the empty thought was the template's own
                return reasoning.strip(), content
            if not closed and (begins or (self.opened and opening == self.marks[0])):
                return inside.strip(), ""  # cut while it thought
        return "", bare


def reader_of(
    template: Template, finder: Finder, stop: Sequence[str], thinking: Any, dialects: Sequence[ToolFormat]
) -> Reader:
    """The reader of a template's answers. ``finder`` finds them in its renders."""
    habits, marks = finder.habits, finder.marks
    lead = "" if marks[0].strip() in habits.lead else habits.lead
    trail = habits.tail.partition(habits.stop)[0] if habits.stop else ""
    plain = Reader(stop, marks, False, False, lead, trail)
    dialect = dialects[0] if len(dialects) == 1 else _dialect(template, finder, plain, thinking, dialects)
    now, asked = (_prompt_ends(template, one) for one in (thinking, True))
    opened = opens(now, marks[0])
    some = opened or opens(asked, marks[0]) or any(opens(prompt, marks[1]) for prompt in (now, asked))
    return Reader(stop, marks, opened, some, lead, trail, dialect)


def _prompt_ends(template: Template, thinking: Any) -> str:
    try:
        return template.render((ASKED,), generation=True, thinking=thinking).text
    except DataError:
        return ""


def _dialect(
    template: Template, finder: Finder, reader: Reader, thinking: Any, dialects: Sequence[ToolFormat]
) -> ToolFormat | None:
    """The dialect that reads the calls that the template writes, the first of those that read most of them."""
    best, most = None, 0
    answers = [(said, _written(template, finder, reader, said, thinking)) for said in SAID] if dialects else []
    for dialect in dialects:
        reads = sum(bool(text) and _reads(dialect, text, said) for said, text in answers)
        if reads > most:
            best, most = dialect, reads
    return best


def _written(template: Template, finder: Finder, reader: Reader, said: Message, thinking: Any) -> str:
    """What the template has of an answer after its prompt, without the stop token; empty when it refuses."""
    try:
        answer = finder.answer(Turns(template, (ASKED, said), PROBED), 1, thinking)
    except DataError:
        return ""
    return reader.thought(reader.ended(answer.trained))[1]


def _reads(dialect: ToolFormat, text: str, said: Message) -> bool:
    try:
        content, read = read_answer(dialect, text, PROBED)
    except (FtkError, ValueError, LookupError, TypeError, AttributeError):
        return False
    calls, found = ([(call.name, dict(call.arguments)) for call in one] for one in (said.tool_calls, read))
    return found == calls and content.strip() == said.text
