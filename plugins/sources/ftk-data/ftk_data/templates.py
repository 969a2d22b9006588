"""A Jinja chat template as a function of messages: what it wants to be given, and what it says when it refuses."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import jinja2
from ftk import DataError, Media, Message, Text, ToolCall
from jinja2 import meta

from ftk_data.environment import RENDER_ERRORS, TemplateRefused, environment, render_marked
from ftk_data.messages import as_dicts
from ftk_data.tracing import Trace, trace

if TYPE_CHECKING:
    from ftk.types import Tools

PROBE = "7319073197"
"""A text that hardly stands in a template and is the same in capitals."""
ASKED = Message("user", "?")
UNSET: Any = "unset"
SWITCHES = ("enable_thinking", "thinking")
"""The variables by which templates are told whether the model shall reason."""
REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")


class Rendered(NamedTuple):
    """What a template wrote, and the stretches of it that ``generation`` blocks did, as (start, end) in characters."""

    text: str
    spans: list[tuple[int, int]]


@dataclass(frozen=True)
class Template:
    """The source of a chat template. tokens: the special tokens by the names that it sees."""

    source: str
    tokens: Mapping[str, str]
    preserve_thinking: bool = False

    def render(
        self, messages: Sequence[Message], tools: Tools = (), *, generation: bool = False, thinking: Any = UNSET
    ) -> Rendered:
        """Raises DataError with the template's own words when it refuses."""
        return self.write(self.dicts(messages), self.variables(tools, thinking), generation=generation)

    def write(
        self, messages: Sequence[dict[str, Any]], variables: Mapping[str, Any], *, generation: bool = False
    ) -> Rendered:
        """``render`` of messages and variables as the template wants them."""
        try:
            return Rendered(*render_marked(self.source, messages, add_generation_prompt=generation, **variables))
        except RENDER_ERRORS as cause:
            raise DataError(_complaint(cause)) from cause

    def trace(self, messages: Sequence[dict[str, Any]], variables: Mapping[str, Any]) -> Trace | None:
        """The same for all beginnings of a conversation at once, where that is possible."""
        return trace(self.source, messages, variables) if self._traceable else None

    def dicts(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """The messages as this template wants them."""
        called = any(message.tool_calls for message in messages)
        text, none = self._calls if called else (False, False)
        return as_dicts(messages, self.reasoning_key, text_arguments=text, none_content=none, lists=self.lists)

    def leaves_out(self, kind: str) -> bool:
        """Whether a medium among the parts of a question goes without a word."""
        if self.lists is False:
            return True
        text = (Text(PROBE),)
        without, shown = (self._tried((Message("user", one),), "") for one in (text, (*text, Media(kind, ""))))  # type: ignore[arg-type]
        return without == shown != ""

    def variables(self, tools: Tools, thinking: Any) -> dict[str, Any]:
        made: dict[str, Any] = {**self.tokens, "tools": list(tools) or None, "documents": None}
        if thinking is not UNSET and thinking is not None:
            made |= dict.fromkeys(self.switches or SWITCHES[:1], thinking)
        if self.preserve_thinking:
            made["preserve_thinking"] = True
        return made

    @cached_property
    def switches(self) -> tuple[str, ...]:
        """Those of SWITCHES that the template reads."""
        asked = meta.find_undeclared_variables(environment().parse(self.source))
        return tuple(name for name in SWITCHES if name in asked)

    @cached_property
    def reasoning_key(self) -> str | None:
        """The key of a message under which the template looks for reasoning.

        Empty when it wants it in the content, as those do that know of none; None when it takes it out there, too.
        """
        said = Message("assistant", "!", reasoning=PROBE)
        calling = replace(said, content="", tool_calls=(ToolCall("x", {}),))  # some write it with calls only
        asked = [(one, thinking) for one in (said, calling) for thinking in (UNSET, True)]
        for key in REASONING_KEYS:
            if key in self.source and any(PROBE in self._tried((ASKED, one), key, thinking) for one, thinking in asked):
                return key
        for thinking in (UNSET, True):
            text = self._tried((ASKED, said), "", thinking)
            twice = re.search(r"</think>\s*<think>", text)  # with an empty thought of the template's own
            if PROBE in text and not twice:
                return ""
        return None

    @cached_property
    def keeps_inline(self) -> bool:
        """Whether a thought in the text of an answer stays there, though the template has another place for it."""
        said = f"<think>\n{PROBE}\n</think>\n\n!"
        return bool(self.reasoning_key) and said in self._tried((ASKED, Message("assistant", said)), "")

    @cached_property
    def _traceable(self) -> bool:
        """Whether a plain conversation can be traced; where not even that can, tracing is time lost."""
        turns = [Message("user", "?"), Message("assistant", "!"), Message("user", "?")]
        for asked in (turns, [Message("system", "."), *turns]):
            found = trace(self.source, self.dicts(asked), self.variables((), UNSET))
            if found:
                return len(asked) in found.cuts and len(asked) - 1 in found.cuts
        return False

    @cached_property
    def lists(self) -> bool | None:
        """Whether a template wants contents as lists of parts (True), as texts (False) or takes both (None)."""
        said = Message("user", PROBE)
        text, listed = (self._tried((said,), "", lists=one) for one in (None, True))
        listed = "" if "'text'" in listed or '"text"' in listed else listed  # as Python or JSON
        if PROBE in text:
            return None if PROBE in listed else False
        return True if PROBE in listed else None

    @cached_property
    def _calls(self) -> tuple[bool, bool]:
        """Whether a template wants the arguments of a call as JSON text, and None in the place of an empty content.

        Both is what the OpenAI API sends and DeepSeek's templates expect; what others write of them is Python or HTML.
        """
        call = ToolCall(PROBE, {"x": "y", "z": {}})
        for none in (False, True):
            for text in (False, True):
                said = Message("assistant", tool_calls=(call,))
                found = self._tried((ASKED, said), "", text_arguments=text, none_content=none, lists=self.lists)
                if PROBE in found and repr(call.arguments) not in found and "&#34;" not in found:
                    return text, none
        return False, False

    def _tried(self, messages: Sequence[Message], reasoning_key: str | None, thinking: Any = UNSET, **form: Any) -> str:
        """A probe as rendered; empty when the template refuses it."""
        form = form or {"lists": self.lists}
        try:
            made = as_dicts(messages, reasoning_key, **form)
            return self.write(made, self.variables((), thinking)).text
        except DataError:
            return ""


def _complaint(cause: Exception) -> str:
    """What a template tripped over, on one line."""
    said = " ".join(str(cause).split()) or type(cause).__name__
    if isinstance(cause, TemplateRefused):
        return f"the chat template refuses this conversation: {said}"
    if isinstance(cause, jinja2.TemplateSyntaxError):
        return f"the chat template does not parse: line {cause.lineno}: {said}"
    if isinstance(cause, jinja2.UndefinedError):
        return f"the chat template needs something that this conversation does not give: {said}"
    return f"the chat template cannot write this conversation: {type(cause).__name__}: {said}"


class Turns:
    """What a template writes of the beginnings of one conversation.

    Messages are counted from the start: ``full(2)`` is the render of the first two.
    """

    def __init__(self, template: Template, messages: Sequence[Message], tools: Tools) -> None:
        self.template, self.messages, self.tools = template, messages, tools
        self._dicts = template.dicts(messages)
        self._known: dict[str, tuple[dict[str, Any], Trace | None]] = {}

    def full(self, num: int, thinking: Any) -> Rendered:
        """The first ``num`` messages. Raises DataError when the template refuses them."""
        variables, found = self._trace(thinking)
        if found is None or num not in found.cuts:
            return self.template.write(self._dicts[:num], variables)
        end = found.cuts[num]
        return Rendered(found.text[:end] + found.closing, [span for span in found.spans if span[1] <= end])

    def prompt(self, num: int, thinking: Any) -> str:
        """The first ``num`` messages and what starts an answer to them. Raises DataError as ``full``."""
        variables, found = self._trace(thinking)
        if found is None or num not in found.cuts:
            return self.template.write(self._dicts[:num], variables, generation=True).text
        return found.text[: found.cuts[num]] + found.opening

    def probe(self, num: int, thinking: Any) -> tuple[str, str]:
        """What is written before and after an answer that follows the first ``num`` messages.

        Raises DataError when the template leaves such an answer out, or writes it several times.
        """
        mark = PROBE
        while any(mark in str(message) for message in self.messages):
            mark += "7"
        text = self._other(num, Message("assistant", mark), thinking)
        if text.count(mark) != 1:
            raise DataError(f"the chat template leaves out turn {num + 1} or repeats it")
        before, _, after = text.partition(mark)
        return before, after

    def shows(self, num: int, message: Message, mark: str, thinking: Any) -> bool:
        """Whether ``mark`` is written when ``message``, which holds it, follows the first ``num``."""
        return mark in self._other(num, message, thinking)

    def _other(self, num: int, message: Message, thinking: Any) -> str:
        variables, _ = self._trace(thinking)
        return self.template.write([*self._dicts[:num], *self.template.dicts([message])], variables).text

    def _trace(self, thinking: Any) -> tuple[dict[str, Any], Trace | None]:
        key = str(thinking)
        if key not in self._known:
            variables = self.template.variables(self.tools, thinking)
            self._known[key] = (variables, self.template.trace(self._dicts, variables))
        return self._known[key]
