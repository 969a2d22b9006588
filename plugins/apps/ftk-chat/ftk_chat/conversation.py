"""A conversation: what was said, with what tools, and the engine that goes on with it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ftk import DataError, Media, Message, Prompt, Sampling, Text
from ftk.kernel_options import SamplingOptions
from ftk.types import RunningEngine, ToolCall, Tools
from ftk_data.converting import tools_of
from ftk_data.following import Follower, Said

if TYPE_CHECKING:
    from ftk_data.rendering import Renderer

PLACE = re.compile("<(image|video|audio)>")


class Conversation:
    """What was said, and the engine that goes on with it. ``seed`` counts on with every answer.

    Answers are kept as the template's training rows have them: content, reasoning and calls apart.
    template: what ``ftk_data.renderer(run)`` gives. showing: what the next line shows: each in the place of its
    ``<image>``, ``<video>`` or ``<audio>``, else before it. adapter: which of ``adapters`` answers; None is the run's
    own.
    """

    def __init__(
        self, engine: RunningEngine, template: Renderer, options: SamplingOptions, seed: int | None = None,
        system: str | None = None,
    ) -> None:  # fmt: skip
        self.engine, self.template, self.options, self.seed, self.system = engine, template, options, seed, system
        self.messages: list[Message] = []
        self.showing: list[Media] = []
        self.tools: Tools = ()
        self.adapter: str | None = None

    @property
    def adapters(self) -> tuple[str, ...]:
        """The names that ``adapter`` may have."""
        return tuple(getattr(self.engine, "adapters", ()))

    @property
    def waiting(self) -> tuple[ToolCall, ...]:
        """The calls of the last answer that have no result yet."""
        last = next((n for n in range(len(self.messages) - 1, -1, -1) if self.messages[n].role != "tool"), None)
        if last is None:
            return ()
        return self.messages[last].tool_calls[len(self.messages) - 1 - last :]

    def answer(self, text: str | None = None) -> Iterator[Said]:
        """Say ``text`` and yield the answer as it comes; without a text, go on after the results of calls.

        An answer that is broken off is kept as far as it came. Raises DataError when the conversation has become too
        long, or shows what the model cannot take; then nothing is added to it.
        """
        turns = [] if text is None else [Message("user", _content(text, self.showing))]
        self.showing = []
        follower, said = Follower(self.template, self.tools), False
        try:
            for piece in self.engine.stream(Prompt((*self.whole(), *turns), self.tools), self._sampling()):
                said = True
                yield from follower.push(piece)
            yield from follower.finish()
        finally:
            if said:
                for _ in follower.finish():
                    pass
                self.messages += (*turns, follower.message)
            if self.seed is not None:
                self.seed += 1

    def result(self, text: str) -> None:
        """Add the result of the first call that waits for one."""
        self.messages.append(Message("tool", text, call_id=self.waiting[0].id))

    def whole(self) -> tuple[Message, ...]:
        """All messages, the system text first."""
        return (*([Message("system", self.system)] if self.system else ()), *self.messages)

    def offer(self, tools: Tools) -> None:
        """Give the model these tools. Raises DataError when its chat template cannot write them."""
        if tools:
            self.template.prompt_text([Message("user", "Hi")], tools)
        self.tools = tools

    def clear(self) -> None:
        """Forget what was said; the system text, the tools and the adapter stay."""
        self.messages, self.showing = [], []

    def thoughts(self) -> str:
        """What was thought before the last answer; empty when nothing was."""
        return next((one.reasoning or "" for one in reversed(self.messages) if one.role == "assistant"), "")

    def _sampling(self) -> Sampling:
        return replace(self.options.sampling(self.seed), adapter=self.adapter)


def read_tools(path: Path) -> Tools:
    """The tools of a JSON file: a list in OpenAI's form, or an object with ``tools``. Raises DataError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as cause:
        raise DataError(f"{path}: cannot be read: {getattr(cause, 'strerror', None) or cause}") from cause
    tools = tools_of(content.get("tools") if isinstance(content, dict) else content, str(path))
    if not tools:
        raise DataError(f"{path}: holds no tools")
    return tools


def _content(text: str, media: Sequence[Media]) -> str | tuple[Text | Media, ...]:
    """A text with media in the places that it names; those that it does not name stand before it."""
    if not media:
        return text
    waiting, parts = list(media), list[Text | Media]()
    for number, piece in enumerate(PLACE.split(text)):
        named = next((one for one in waiting if one.kind == piece), None) if number % 2 else None
        if named is not None:
            waiting.remove(named)
            parts.append(named)
        elif piece:
            parts.append(Text(f"<{piece}>" if number % 2 else piece))
    return (*waiting, *parts)
