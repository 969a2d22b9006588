"""Declared formats written out without Jinja: the same text a good deal quicker, for the conversations that most are.

A format is a few strings around the content, so plain conversations are put together from these. Whatever takes more
(tools, parts, reasoning where it is not declared) is left to the Jinja source; a property test holds both to each
other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ftk import ChatTemplate, Message, Segment

from ftk_data.conversations import UNSET, JinjaRenderer

if TYPE_CHECKING:
    from ftk.types import Tools

    from ftk_data.rendering import Row

Around = tuple[str, str]
"""What stands before and after a content; ``content.join(around)`` is the whole."""


class NotPlain(Exception):
    """A conversation, or a template, that is left to Jinja."""


class Direct:
    """A declared template without tools. Raises NotPlain for one that has more than a content in a format."""

    def __init__(
        self, spec: ChatTemplate, tokens: Mapping[str, str], default_system: str | None, preserve_thinking: bool
    ) -> None:
        if spec.source or spec.target:
            raise NotPlain
        fill = {"bos": tokens.get("bos_token", ""), "eos": tokens.get("eos_token", "")}
        self.spec = spec
        self.default_system = spec.default_system if default_system is None else default_system
        self.preserve = preserve_thinking
        self.prefix, self.generation, self.end = (
            _fixed(form, fill) for form in (spec.prefix, spec.generation, spec.assistant_end)
        )
        self.note = _fixed(spec.system_note, fill) if spec.system_note else None
        self.user, self.assistant = _around(spec.user, fill), _around(spec.assistant, fill)
        self.system = _around(spec.system if spec.system_in_user is None else spec.system_in_user, fill)

    def rows(self, messages: Sequence[Message]) -> list[Row]:
        """As :meth:`ftk_data.rendering.Renderer.render`. Raises NotPlain, also when no answer is trained."""
        if self.spec.thinking and not self.preserve:
            return self._rewritten(messages)
        row: list[Segment] = []
        text = ""
        learns = False
        for message, before, answer in self._turns(messages):
            text += before
            if answer is None:
                continue
            if message.trained is False:
                text += self._answer(message, answer) + self.end
                continue
            learns = True
            if text:
                row.append(Segment(text, False))
            if trained := self._answer(message, answer):
                row.append(Segment(trained, True, message.weight))
            text = self.end
        if not learns:
            raise NotPlain
        if text:
            row.append(Segment(text, False))
        return [row]

    def _rewritten(self, messages: Sequence[Message]) -> list[Row]:
        """A row for each trained answer, because those before it lose their reasoning."""
        rows: list[Row] = []
        text = ""
        role = ""
        for message, before, answer in self._turns(messages):
            if answer is not None and role != "user":
                raise NotPlain  # what belongs to which question takes a closer look
            role = message.role
            text += before
            if answer is None:
                continue
            if message.trained is not False:
                trained = Segment(self._answer(message, answer), True, message.weight)
                row = (Segment(text, False), trained, Segment(self.end, False))
                rows.append([segment for segment in row if segment.text])
            text += answer.join(self.assistant) + self.end
        if not rows:
            raise NotPlain
        return rows

    def _answer(self, message: Message, content: str) -> str:
        if not self.spec.thinking:
            return content.join(self.assistant)
        start, end = self.spec.thinking
        return (start + (message.reasoning or "").strip("\n") + end + content.lstrip("\n")).join(self.assistant)

    def _turns(self, messages: Sequence[Message]) -> list[tuple[Message, str, str | None]]:
        """(message, text before the answer or instead of one, its content or None) of each turn."""
        lead, start, messages = self._start(messages)
        trim, user, generation = self.spec.trim, self.user, self.generation
        made: list[tuple[Message, str, str | None]] = []
        for message in messages:
            content, role = message.content, message.role
            if content.__class__ is not str or message.tool_calls:
                raise NotPlain
            if role == "user":
                content = (lead + content).strip() if trim else lead + content
                made.append((message, start + content.join(user), None))
                lead = ""
            elif role == "assistant":
                made.append((message, start + generation, self._content(message)))
            elif role == "system" and self.spec.system_in_user is None:
                content = content.strip() if self.spec.trim else content
                made.append((message, start + content.join(self.system), None))
            else:
                raise NotPlain
            start = ""
        if start:
            raise NotPlain
        return made

    def _content(self, message: Message) -> str:
        content = str(message.content)
        if self.spec.thinking:
            if self.spec.thinking[1].strip() in content:
                raise NotPlain
        elif message.reasoning:
            raise NotPlain
        return content.strip() if self.spec.trim else content

    def _start(self, messages: Sequence[Message]) -> tuple[str, str, Sequence[Message]]:
        """What the first question begins with, what the text begins with, and the messages after the system text."""
        system = self.default_system
        if messages and messages[0].role == "system":
            content = messages[0].content
            if content.__class__ is not str:
                raise NotPlain
            system = str(content).strip() if self.spec.trim else str(content)
            messages = messages[1:]
        if self.note is not None:
            system = self.note + (system or "")
        if system is None:
            return "", self.prefix, messages
        if self.spec.system_in_user is None:
            return "", self.prefix + system.join(self.system), messages
        return system.join(self.system), self.prefix, messages


def _fixed(form: str, fill: Mapping[str, str]) -> str:
    """A format without content."""
    if "{content}" in form:
        raise NotPlain
    return re.sub(r"\{(\w+)\}", lambda match: fill[match[1]], form)


def _around(form: str, fill: Mapping[str, str]) -> Around:
    """A format as what stands before and after its content."""
    before, content, after = form.partition("{content}")
    if not content:
        raise NotPlain
    return _fixed(before, fill), _fixed(after, fill)


class QuickRenderer:
    """A declared template: directly where that is possible, else through its Jinja source."""

    def __init__(self, jinja: JinjaRenderer, direct: Direct) -> None:
        self._jinja, self._direct = jinja, direct

    def __getattr__(self, name: str) -> Any:
        return getattr(self._jinja, name)

    def render(self, messages: Sequence[Message], tools: Tools = (), *, generation: bool = False) -> list[Row]:
        if not tools and not generation:
            try:
                return self._direct.rows(messages)
            except NotPlain:
                pass
        return self._jinja.render(messages, tools, generation=generation)


def quick(jinja: JinjaRenderer, spec: ChatTemplate, default_system: str | None, preserve_thinking: bool) -> Any:
    """The renderer, made quicker where its template allows it."""
    if jinja.thinking is not UNSET and jinja.thinking is not True:
        return jinja
    try:
        return QuickRenderer(jinja, Direct(spec, jinja.tokens, default_system, preserve_thinking))
    except (NotPlain, KeyError):
        return jinja
