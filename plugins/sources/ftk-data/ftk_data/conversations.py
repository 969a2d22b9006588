"""Conversations through a Jinja chat template, with exact masks for every answer.

Where an answer starts and ends is found by rendering (:mod:`ftk_data.answers`), so it holds for any template. Turns
share a row as long as each prompt begins with everything that the row holds already. Where it does not, because the
template rewrites history (Qwen3 drops earlier reasoning), the turn gets a row of its own, rendered as the model will
see it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ftk import DataError, Media, Message, Segment, ToolCall

from ftk_data.answers import Finder
from ftk_data.environment import TemplateRefused, one_moment
from ftk_data.habits import Habits, habits_of, num_shared, thought_of
from ftk_data.messages import apart, reasoning_of, without_reasoning
from ftk_data.replies import Reader, reader_of
from ftk_data.templates import ASKED, PROBE, UNSET, Template, Turns

if TYPE_CHECKING:
    from ftk.types import Tools

    from ftk_data.rendering import Row
    from ftk_data.tools import ToolFormat

__all__ = ["UNSET", "JinjaRenderer"]

log = logging.getLogger("ftk.data")


@dataclass(frozen=True)
class JinjaRenderer:
    """A :class:`ftk_data.rendering.Renderer` over the source of a Jinja chat template.

    tokens: the tokenizer's special tokens by their name in templates (``bos_token`` …). special: all its added tokens.
    thinking: the value of ``enable_thinking``; None follows each conversation; UNSET leaves it to the template.
    saved: the source to save with the model, when it is not this one. stop_words: further strings that end an answer.
    knows_tools: False refuses conversations with tools or calls.
    marked: every answer is one ``generation`` block, ends with its stop token, and history is never rewritten, so one
        render gives all masks. Only for sources that are known to be so.
    apart: a thought in the text of an answer is one, also where the template would leave it in the text.
    dialects: tool formats to read calls with; of several, the one that reads what the template writes.
    """

    source: str
    tokens: Mapping[str, str]
    special: Collection[str] = ()
    default_system: str | None = None
    thinking: Any = UNSET
    preserve_thinking: bool = False
    marked: bool = False
    saved: str = ""
    stop_words: tuple[str, ...] = ()
    knows_tools: bool = True
    apart: bool = False
    dialects: Sequence[ToolFormat] = ()

    def render(self, messages: Sequence[Message], tools: Tools = (), *, generation: bool = False) -> list[Row]:
        prepared = self._prepare(messages)
        if not self.knows_tools and (tools or any(message.tool_calls for message in prepared)):
            raise DataError("holds tools or calls, which this chat template cannot write. Choose another template")
        turns = [i for i, one in enumerate(prepared) if one.role == "assistant" and one.trained is not False]
        with one_moment():
            try:
                rows = self._rows(prepared, tools, turns, generation)
            except DataError as refused:
                if not isinstance(refused.__cause__, TemplateRefused):  # its own words are the better ones
                    self._refuse_media(prepared)
                raise
        if tools or any(message.tool_calls for message in prepared):
            self._refuse_left_out(rows, prepared, tools)
        self._refuse_media(prepared)
        self._tell_of_system(rows, prepared)
        return rows

    def _rows(self, messages: Sequence[Message], tools: Tools, turns: Sequence[int], generation: bool) -> list[Row]:
        if generation or not turns:
            text = self._template.render(messages, tools, generation=generation, thinking=self.thinking).text
            return [[Segment(text + self.habits.header if generation else text, False)]]
        if self.marked:
            return [self._by_marks(messages, tools)]
        self._compared  # noqa: B018 (says once what is to be said)
        return self._by_prompts(Turns(self._template, messages, tools), turns)

    def prompt(self, messages: Sequence[Message], tools: Tools = ()) -> Row:
        """What a model continues with its answer, as one untrained segment."""
        return self.render(messages, tools, generation=True)[0]

    def prompt_text(self, messages: Sequence[Message], tools: Tools = ()) -> str:
        return "".join(segment.text for segment in self.prompt(messages, tools))

    def read(self, text: str, tools: Tools = ()) -> Message:
        """A model's answer taken apart: content, reasoning and calls; calls of an unknown dialect stay text.

        With or without its stop token, and also when the prompt had opened the thought. The reverse of ``render``.
        """
        return self.reader.read(text, tools)

    def jinja(self) -> str:
        return self.saved or self.source

    @cached_property
    def stop(self) -> tuple[str, ...]:
        ends = self.habits.stop or self.habits.missing
        words = (*self.stop_words, ends, self.tokens.get("eos_token", ""))
        return tuple(dict.fromkeys(word for word in words if word))

    def _prepare(self, messages: Sequence[Message]) -> list[Message]:
        prepared = list(messages)
        if self.default_system is not None and (not prepared or prepared[0].role != "system"):
            prepared.insert(0, Message("system", self.default_system))
        if self.apart and self._template.keeps_inline:
            prepared = [apart(message) for message in prepared]
        if self.thinking is False:
            prepared = [without_reasoning(message) for message in prepared]
        return prepared

    def _refuse_left_out(self, rows: Sequence[Row], messages: Sequence[Message], tools: Tools) -> None:
        """Raise DataError when the template has left out tools or calls without a word, as those that know none do."""
        text = "".join(segment.text for row in rows for segment in row)
        trained = [segment.text for row in rows for segment in row if segment.trained]
        learnt = [one for one in messages if one.role == "assistant" and one.trained is not False]
        for message, said in zip(learnt, trained, strict=True) if len(learnt) == len(trained) else ():
            refuse_uncalled(message.tool_calls, said, "")
        called = [call for message in messages for call in message.tool_calls]
        names = [str(tool.get("function", tool).get("name", "")) for tool in tools]
        if any(not written(name, text) for name in names):
            raise DataError("the chat template leaves out the tools. Choose a template that knows them")
        counts = [call.name for call in called]
        if any(written(name, text) <= counts.count(name) for name in [*names, *([] if trained else counts)]):
            told, bare = self._before_calls(messages, tools)
            if names and told == bare:
                raise DataError("the chat template leaves out the tools. Choose a template that knows them")
            if not trained:
                refuse_uncalled(called, text, told)

    def _before_calls(self, messages: Sequence[Message], tools: Tools) -> tuple[str, str]:
        """What the template writes before the first call, with the tools and without; empty where it writes nothing."""
        first = next((number for number, message in enumerate(messages) if message.tool_calls), len(messages))
        try:
            told = self._template.render(messages[:first], tools, thinking=self.thinking).text
        except DataError:
            return "", "?"
        return told, self._template.render(messages[:first], (), thinking=self.thinking).text

    def _refuse_media(self, messages: Sequence[Message]) -> None:
        parts = [part for message in messages if not isinstance(message.content, str) for part in message.content]
        for kind in dict.fromkeys(part.kind for part in parts if isinstance(part, Media)):
            if kind not in self._media:
                self._media[kind] = self._template.leaves_out(kind)
            if self._media[kind]:
                raise DataError(f"the chat template leaves out the {kind}. Choose a template that knows {kind}")

    def _tell_of_system(self, rows: Sequence[Row], messages: Sequence[Message]) -> None:
        """Say once that the template leaves system texts out, as some published ones do."""
        system = messages[0].text.strip() if messages and messages[0].role == "system" else ""
        if system and not self._told and not any(system in segment.text for row in rows for segment in row):
            self._told.append(system)
            log.warning("the chat template leaves the system text out or changes it: %.60r", system)

    @cached_property
    def _compared(self) -> bool:
        """Whether an answer without a thought has the prompt before it that inference gives; if not, that is said."""
        turns = Turns(self._template, [ASKED, Message("assistant", PROBE)], ())
        thinking = UNSET if self.thinking is None else self.thinking
        try:
            before = self._finder.answer(turns, 1, thinking).prompt
            prompt = turns.prompt(1, thinking) + self.habits.header
        except DataError:
            return True
        if before != prompt:
            at = num_shared(before, prompt)
            log.warning(
                "before an answer without a thought the chat template writes %r in conversations and %r in prompts. "
                "Rows are conversations; enable_thinking may make them alike",
                before[at:], prompt[at:],
            )  # fmt: skip
        return before == prompt

    @cached_property
    def _told(self) -> list[str]:
        return []

    @cached_property
    def _media(self) -> dict[str, bool]:
        return {}

    def _by_marks(self, messages: Sequence[Message], tools: Tools) -> Row:
        text, spans = self._template.render(messages, tools, thinking=self.thinking)
        answers = [message for message in messages if message.role == "assistant"]
        if len(answers) != len(spans):
            raise DataError(f"the chat template wrote {len(spans)} of {len(answers)} answers")
        row: Row = []
        done = 0
        for message, (start, end) in zip(answers, spans, strict=True):
            if message.trained is not False:
                row += (Segment(text[done:start], False), Segment(text[start:end], True, message.weight))
                done = end
        return [segment for segment in (*row, Segment(text[done:], False)) if segment.text]

    def _by_prompts(self, turns: Turns, trained: Sequence[int]) -> list[Row]:
        rows: list[Row] = []
        held = rest = ""
        for number in trained:
            answer = self._finder.answer(turns, number, self._thinking(turns.messages[number]))
            if rows and (word := self._ended_by(held, answer.prompt)):
                last = rows[-1][-1]
                rows[-1][-1] = last._replace(text=last.text.removesuffix(self.habits.missing) + word)
                held = held.removesuffix(self.habits.missing) + word
            if not rows or not answer.prompt.startswith(held):
                if rows:
                    rows[-1].append(Segment(rest, False))
                rows.append([])
                held = ""
            weight = turns.messages[number].weight
            rows[-1] += (Segment(answer.prompt[len(held) :], False), Segment(answer.trained, True, weight))
            held, rest = answer.prompt + answer.trained, answer.rest
        if trained[-1] + 1 < len(turns.messages):  # what comes after the last trained answer, if that stays as it is
            whole = turns.full(len(turns.messages), self._thinking(turns.messages[trained[-1]])).text
            rest = whole[len(held) :] if whole.startswith(held) else rest
        rows[-1].append(Segment(rest, False))
        return [[segment for segment in row if segment.text] for row in rows]

    def _ended_by(self, held: str, prompt: str) -> str:
        """The stop word with which the next turn ends an answer, where the template writes none after it (GLM-4)."""
        missing = self.habits.missing
        if not missing or not held.endswith(missing) or not prompt.startswith(held.removesuffix(missing)):
            return ""
        following = prompt[len(held) - len(missing) :]
        words = (word for word in self.stop_words if word in self.special)  # one token, as a model ends its answer
        return next((word for word in words if following.startswith(word)), "")

    def _thinking(self, message: Message) -> Any:
        return bool(reasoning_of(message)) if self.thinking is None else self.thinking

    @cached_property
    def _template(self) -> Template:
        return Template(self.source, self.tokens, self.preserve_thinking)

    @cached_property
    def habits(self) -> Habits:
        """What the template does around answers."""
        return habits_of(self._template, self._ends, self.thinking)

    @cached_property
    def _finder(self) -> Finder:
        known = (self.habits.stop, self.habits.missing)
        ends = tuple(dict.fromkeys(end for end in (*self._ends, *known) if end))
        return Finder(self.habits, ends, self._marks)

    @cached_property
    def _marks(self) -> tuple[str, str]:
        return thought_of(self._template, self.thinking)

    @cached_property
    def reader(self) -> Reader:
        """What takes this template's answers apart."""
        return reader_of(self._template, self._finder, self.stop, self.thinking, self.dialects)

    @cached_property
    def _ends(self) -> tuple[str, ...]:
        """What may end an answer: added tokens, which with Gemma and others hold whitespace and HTML tags, too."""
        eos = self.tokens.get("eos_token", "")
        ends = (token for token in {*self.special, *self.stop_words} if token.strip() and not token.startswith("</"))
        return tuple(dict.fromkeys(token for token in (eos, *sorted(ends)) if token))


def refuse_uncalled(calls: Sequence[ToolCall], text: str, before: str) -> None:
    """Raise DataError when a text has not all calls. Names in what stands ``before`` them in it do not count."""
    names = [call.name for call in calls]
    for name in names:
        if written(name, text) - written(name, before) < names.count(name):
            raise DataError(f"the chat template leaves out the call of {name}. Choose a template that knows calls")


def written(name: str, text: str) -> int:
    """How often a name stands in a text, as it is or as JSON has it."""
    return max(text.count(name), text.count(json.dumps(name, ensure_ascii=False)[1:-1]))
