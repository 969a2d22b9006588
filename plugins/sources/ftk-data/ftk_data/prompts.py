"""Prompts as tokens, cut exactly where training rows are, so that a model reads at inference what it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ftk import DataError, Media, Message, Segment

from ftk_data.encoding import Encoder
from ftk_data.literal import ControlTokens, unescaped
from ftk_data.placing import media_of, placed

if TYPE_CHECKING:
    from ftk.types import MediaEncoder, Tools

    from ftk_data.rendering import Renderer, Row

ANSWER = Message("assistant", "Answer7319")


class PromptEncoder:
    """Encodes the prompts of one template with one tokenizer; ``media`` is for those that show something."""

    def __init__(self, renderer: Renderer, tokenizer: Any, media: MediaEncoder | None = None) -> None:
        self.renderer, self.media = renderer, media
        self.encoder = Encoder(tokenizer)
        self.control = ControlTokens.of(tokenizer)
        self.literally = bool(getattr(tokenizer, "split_special_tokens", False))

    def ids(self, prompts: Sequence[tuple[Sequence[Message], Tools]]) -> list[list[int]]:
        """The tokens of each (messages, tools), up to where the assistant's answer begins.

        Raises DataError for a conversation that the template cannot write.
        """
        return [ids for ids, _ in self.shown(prompts)]

    def shown(self, prompts: Sequence[tuple[Sequence[Message], Tools]]) -> list[tuple[list[int], tuple[Media, ...]]]:
        """The tokens of each prompt, and the media that they show, in order. Raises DataError, see :meth:`ids`."""
        rows = [self.row(messages, tools) for messages, tools in prompts]
        batch = self.encoder.rows(rows)
        edges = batch.starts.tolist()
        media = [tuple(segment.media for segment in row if segment.media is not None) for row in rows]
        return [(batch.ids_T[edges[i] : edges[i + 1]].tolist(), media[i]) for i in range(len(prompts))]

    def row(self, messages: Sequence[Message], tools: Tools = ()) -> Row:
        """The prompt in the segments of a training row: earlier answers are encoded by themselves."""
        self._check_shown(messages)
        said = messages
        if self.literally and self.control.are_in(messages, tools):
            messages, tools = self.control.escaped(messages, tools)
        text = self.renderer.prompt_text(messages, tools)
        row = [Segment(text, False)]
        if any(message.role == "assistant" for message in messages):
            row = self._as_trained(messages, tools, text) or row
        return self.with_media(unescaped([row])[0], said)

    def with_media(self, row: Row, messages: Sequence[Message]) -> Row:
        """The row with the tokens of what the messages show. Raises DataError when it does not show all of them."""
        self._check_shown(messages)
        if self.media is None:
            return row
        media = media_of(messages)
        (row,) = placed([row], messages, self.media)
        if (found := sum(segment.media is not None for segment in row)) != len(media):
            raise DataError(f"the conversation shows {len(media)} media, of which the chat template writes {found}")
        return row

    def _check_shown(self, messages: Sequence[Message]) -> None:
        media = media_of(messages)
        if media and self.media is None:
            raise DataError(f"{media[0].kind}s cannot be shown to this model: no installed plugin serves it with them")

    def _as_trained(self, messages: Sequence[Message], tools: Tools, text: str) -> Row:
        """What stands before the next answer in a row that trains it; empty when that is not the prompt's text."""
        try:
            row = self.renderer.render([*messages, ANSWER], tools)[-1]
        except DataError:
            return []
        last = max((number for number, segment in enumerate(row) if segment.trained), default=0)
        before = row[:last]
        return before if "".join(segment.text for segment in before) == text else []
