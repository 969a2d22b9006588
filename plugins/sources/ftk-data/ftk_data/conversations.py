"""Conversations through a Jinja template, with exact masks for every answer.

Where an answer starts and ends is found by rendering, so it holds for any template: the prompt of turn i is the render
of what comes before it with the generation prompt; the answer is what the render with turn i has beyond that, up to
and with the stop token. Turns share a row as long as each prompt begins with everything that the row holds already.
Where it does not, because the template rewrites history (Qwen3 drops earlier reasoning), the turn gets a row of its
own, rendered as the model will see it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import jinja2
from ftk import DataError, Message, Segment

from ftk_data.environment import TemplateRefused, render_marked
from ftk_data.messages import THINK_OPEN, as_dicts, reasoning_of, with_reasoning, without_reasoning

if TYPE_CHECKING:
    from ftk.types import Tools

    from ftk_data.rendering import Row

log = logging.getLogger("ftk.data")

PROBE = "Probe7319"
UNSET: Any = "unset"


class Answer(NamedTuple):
    """One assistant turn as rendered: what comes before it, what it trains, and what the template writes after that."""

    prompt: str
    trained: str
    rest: str


class Habits(NamedTuple):
    """What a template does around an answer, found with a probe.

    tail: what follows the answer's text. stop: the token in it that ends the turn, empty when there is none.
    extra: what the generation prompt has that the template doesn't write in front of a given answer.
    """

    tail: str
    stop: str
    extra: str


@dataclass(frozen=True)
class JinjaRenderer:
    """A :class:`ftk_data.rendering.Renderer` over the source of a Jinja chat template.

    tokens: the tokenizer's special tokens by their name in templates (``bos_token`` …). special: all its added tokens.
    thinking: the value of ``enable_thinking``; None follows each conversation; UNSET leaves it to the template.
    saved: the source to save with the model, when it is not this one. stop_words: further strings that end an answer.
    knows_tools: False refuses conversations with tools or calls.
    marked: every answer is one ``generation`` block, ends with its stop token, and history is never rewritten, so one
        render gives all masks. Only for sources that are known to be so.
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

    def render(self, messages: Sequence[Message], tools: Tools = (), *, generation: bool = False) -> list[Row]:
        if not self.knows_tools and (tools or any(message.tool_calls for message in messages)):
            raise DataError("holds tools or calls, which this chat template cannot write. Choose another template")
        prepared = self._prepare(messages)
        turns = [i for i, one in enumerate(prepared) if one.role == "assistant" and one.trained is not False]
        if generation or not turns:
            text, _ = self._text(prepared, tools, generation, self.thinking)
            rows = [[Segment(text, False)]]
        elif self.marked:
            rows = [self._by_marks(prepared, tools)]
        else:
            rows = self._by_prompts(prepared, tools, turns)
        if tools or any(message.tool_calls for message in prepared):
            refuse_left_out(rows, prepared, tools)
        return rows

    def prompt_text(self, messages: Sequence[Message], tools: Tools = ()) -> str:
        return self.render(messages, tools, generation=True)[0][0].text

    def jinja(self) -> str:
        return self.saved or self.source

    @cached_property
    def stop(self) -> tuple[str, ...]:
        words = (*self.stop_words, self.habits.stop, self.tokens.get("eos_token", ""))
        return tuple(dict.fromkeys(word for word in words if word))

    def _prepare(self, messages: Sequence[Message]) -> list[Message]:
        prepared = list(messages)
        if self.default_system is not None and (not prepared or prepared[0].role != "system"):
            prepared.insert(0, Message("system", self.default_system))
        if self.thinking is False:
            prepared = [without_reasoning(message) for message in prepared]
        return prepared

    def _by_marks(self, messages: Sequence[Message], tools: Tools) -> Row:
        text, spans = self._text(messages, tools, False, self.thinking)
        answers = [message for message in messages if message.role == "assistant"]
        if len(answers) != len(spans):
            raise DataError(f"the chat template wrote {len(spans)} of {len(answers)} answers")
        row: Row = []
        done = 0
        for message, (start, end) in zip(answers, spans, strict=True):
            if message.trained is not False:
                row += (Segment(text[done:start], False), Segment(text[start:end], True))
                done = end
        return [segment for segment in (*row, Segment(text[done:], False)) if segment.text]

    def _by_prompts(self, messages: Sequence[Message], tools: Tools, turns: Sequence[int]) -> list[Row]:
        rows: list[Row] = []
        held, rest = "", ""
        for turn in turns:
            answer = self._answer(messages[: turn + 1], tools)
            if not rows or not answer.prompt.startswith(held):
                if rows and rest:
                    rows[-1].append(Segment(rest, False))
                rows.append([])
                held = ""
            rows[-1] += (Segment(answer.prompt[len(held) :], False), Segment(answer.trained, True))
            held, rest = answer.prompt + answer.trained, answer.rest
        rows[-1].append(Segment(rest, False))
        return [[segment for segment in row if segment.text] for row in rows]

    def _answer(self, messages: Sequence[Message], tools: Tools) -> Answer:
        """The last message as the template writes it. Raises DataError when it cannot be told from the prompt."""
        last = messages[-1]
        thinking = bool(reasoning_of(last)) if self.thinking is None else self.thinking
        full, spans = self._text(messages, tools, False, thinking)
        prompt, _ = self._text(messages[:-1], tools, True, thinking)
        start = self._start(full, prompt, messages, tools)
        start = next((a for a, _ in spans if a >= start), start)
        end = self._end(full)
        if end is None or end < start:
            return Answer(full[:start], full[start:] + self.tokens.get("eos_token", ""), "")
        trained = full[start:end]
        if last.reasoning and last.reasoning.strip() not in trained:
            # R1 and its kind write no reasoning into a conversation; the model does when it answers
            before = prompt if prompt.endswith(THINK_OPEN) else full[:start]
            return Answer(before, with_reasoning(trained, last.reasoning, before), full[end:])
        return Answer(full[:start], trained, full[end:])

    def _start(self, full: str, prompt: str, messages: Sequence[Message], tools: Tools) -> int:
        if full.startswith(prompt):
            return len(prompt)
        if "enable_thinking" in self.source:  # the template writes the turn as if the prompt had asked for no thought
            unthinking, _ = self._text(messages[:-1], tools, True, False)
            if full.startswith(unthinking):
                return len(unthinking)
        extra = self.habits.extra
        if extra and prompt.endswith(extra) and full.startswith(prompt.removesuffix(extra)):
            return len(prompt) - len(extra)
        raise DataError(
            f"the chat template writes turn {len(messages)} so that its start cannot be told from the prompt"
        )

    def _end(self, full: str) -> int | None:
        """Where the answer that ends a render ends, stop token included; None when the template writes none."""
        tail, stop, _ = self.habits
        if stop and full.endswith(tail):
            return len(full) - len(tail) + tail.index(stop) + len(stop)
        bare = full.rstrip()
        return len(bare) if any(bare.endswith(token) for token in self._ends) else None

    @cached_property
    def _ends(self) -> tuple[str, ...]:
        return tuple(token for token in {*self.special, self.tokens.get("eos_token", "")} if token)

    @cached_property
    def habits(self) -> Habits:
        question = (Message("user", PROBE + "?"),)
        try:
            full, _ = self._text((*question, Message("assistant", PROBE)), (), False, self.thinking)
            prompt, _ = self._text(question, (), True, self.thinking)
        except DataError:
            return Habits("", "", "")
        before, probe, tail = full.rpartition(PROBE)
        if not probe:
            return Habits("", "", "")
        stop = first_token(tail, self._ends)
        if not stop and self.tokens.get("eos_token"):
            log.warning("the chat template writes no stop token; each answer gets %s and its own row", self._eos)
        extra = "" if full.startswith(prompt) else prompt[_num_shared(before, prompt) :]
        return Habits(tail, stop, extra)

    @property
    def _eos(self) -> str:
        return self.tokens.get("eos_token", "")

    def _text(
        self, messages: Sequence[Message], tools: Tools, generation: bool, thinking: Any
    ) -> tuple[str, list[tuple[int, int]]]:
        variables: dict[str, Any] = {**self.tokens, "add_generation_prompt": generation, "tools": list(tools) or None}
        if thinking is not UNSET and thinking is not None:
            variables["enable_thinking"] = thinking
        if self.preserve_thinking:
            variables["preserve_thinking"] = True
        try:
            return render_marked(self.source, as_dicts(messages, self._reasoning_key), **variables)
        except TypeError as cause:
            # DeepSeek and others expect the arguments of a call as text, as the OpenAI API sends them
            if any(message.tool_calls for message in messages):
                return self._retry(as_dicts(messages, self._reasoning_key, text_arguments=True), variables)
            raise DataError(f"the chat template cannot write this conversation: {cause}") from cause
        except (TemplateRefused, jinja2.TemplateError, ValueError, KeyError) as cause:
            raise DataError(f"the chat template refuses this conversation: {cause}") from cause

    def _retry(self, messages: list[dict[str, Any]], variables: Mapping[str, Any]) -> tuple[str, list[tuple[int, int]]]:
        try:
            return render_marked(self.source, messages, **variables)
        except (TemplateRefused, jinja2.TemplateError, TypeError, ValueError, KeyError) as cause:
            raise DataError(f"the chat template cannot write this conversation: {cause}") from cause

    @cached_property
    def _reasoning_key(self) -> str:
        """The key of a message under which the template looks for reasoning; empty when it wants it in the content."""
        for key in ("reasoning_content", "reasoning", "thinking"):
            if key not in self.source:
                continue
            asked = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!", key: PROBE}]
            try:
                text, _ = render_marked(self.source, asked, **self.tokens, add_generation_prompt=False, tools=None)
            except (TemplateRefused, jinja2.TemplateError, TypeError, ValueError, KeyError):
                continue
            if PROBE in text:
                return key
        return ""


def _num_shared(one: str, other: str) -> int:
    """How many characters two texts share at their start."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def first_token(tail: str, tokens: Collection[str]) -> str:
    """The first of ``tokens`` in what follows an answer, the longest where several start there.

    Without one it is the first word, for tokenizers that do not say what is special.
    """
    found = sorted((tail.index(token), -len(token), token) for token in tokens if token in tail)
    if found:
        return found[0][2]
    words = tail.split()
    return words[0] if words else ""


def refuse_left_out(rows: Sequence[Row], messages: Sequence[Message], tools: Tools) -> None:
    """Raise DataError when a template has left out tools or calls without a word, as those that know none do."""
    text = "".join(segment.text for row in rows for segment in row)
    for tool in tools:
        if str(tool.get("function", tool).get("name", "")) not in text:
            raise DataError("the chat template leaves out the tools. Choose a template that knows them")
    called = [call.name for message in messages for call in message.tool_calls]
    for name in called:
        if text.count(name) < called.count(name) + any(name in json.dumps(tool) for tool in tools):
            raise DataError(f"the chat template leaves out the call of {name}. Choose a template that knows calls")
