"""Prompts as tokens, cut exactly where training rows are, so that a model reads at inference what it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ftk import DataError, Message, Segment

from ftk_data.encoding import Encoder
from ftk_data.literal import ControlTokens, unescaped

if TYPE_CHECKING:
    from ftk.types import Tools

    from ftk_data.rendering import Renderer, Row

ANSWER = Message("assistant", "Answer7319")


class PromptEncoder:
    """Encodes the prompts of one template with one tokenizer."""

    def __init__(self, renderer: Renderer, tokenizer: Any) -> None:
        self.renderer = renderer
        self.encoder = Encoder(tokenizer)
        self.control = ControlTokens.of(tokenizer)
        self.literally = bool(getattr(tokenizer, "split_special_tokens", False))

    def ids(self, prompts: Sequence[tuple[Sequence[Message], Tools]]) -> list[list[int]]:
        """The tokens of each (messages, tools), up to where the assistant's answer begins.

        Raises DataError for a conversation that the template cannot write.
        """
        batch = self.encoder.rows([self.row(messages, tools) for messages, tools in prompts])
        edges = batch.starts.tolist()
        return [batch.ids_T[edges[i] : edges[i + 1]].tolist() for i in range(len(prompts))]

    def row(self, messages: Sequence[Message], tools: Tools = ()) -> Row:
        """The prompt in the segments of a training row: earlier answers are encoded by themselves."""
        if self.literally and self.control.are_in(messages, tools):
            messages, tools = self.control.escaped(messages, tools)
        text = self.renderer.prompt_text(messages, tools)
        row = [Segment(text, False)]
        if any(message.role == "assistant" for message in messages):
            row = self._as_trained(messages, tools, text) or row
        return unescaped([row])[0]

    def _as_trained(self, messages: Sequence[Message], tools: Tools, text: str) -> Row:
        """What stands before the next answer in a row that trains it; empty when that is not the prompt's text."""
        try:
            row = self.renderer.render([*messages, ANSWER], tools)[-1]
        except DataError:
            return []
        last = max((number for number, segment in enumerate(row) if segment.trained), default=0)
        before = row[:last]
        return before if "".join(segment.text for segment in before) == text else []
