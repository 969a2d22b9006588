"""What an engine with weights of its own is asked: prompts as the tokens that training has, whoever answers.

Such engines put media into a prompt themselves, so they take it with one placeholder for each; what they make of that
can be held against ``Asked.ids``.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ftk import DataError, Media, Prompt, Segment

from ftk_data.prompts import PromptEncoder
from ftk_data.rendering import Renderer, Row

if TYPE_CHECKING:
    from ftk.run import Run
    from ftk.types import MediaEncoder


@dataclass(frozen=True)
class Asked:
    """A prompt as tokens. ids: as in training, with the tokens of its media. short: with one placeholder for each.

    scored: of the tokens of ``ids``, which are the answer that is scored and its stop token; empty for a prompt.
    """

    ids: list[int]
    short: list[int]
    media: tuple[Media, ...] = ()
    scored: tuple[bool, ...] = ()


class Asking:
    """Encodes the prompts of one run, and says what ends an answer.

    ends: the tokens that do. stops: the stop words of the template that are no tokens of their own.
    limit: how many tokens the engine reads and writes together.
    """

    def __init__(
        self, renderer: Renderer, tokenizer: Any, media: MediaEncoder | None, ends: Collection[int | None],
        limit: int | None,
    ) -> None:  # fmt: skip
        self.renderer, self.tokenizer, self.media, self.limit = renderer, tokenizer, media, limit
        self._prompts = PromptEncoder(renderer, tokenizer, media)
        added = tokenizer.get_added_vocab()
        self.stops = tuple(stop for stop in renderer.stop if stop not in added)
        known = {tokenizer.eos_token_id, *ends, *(added[stop] for stop in renderer.stop if stop in added)}
        self.ends = sorted(one for one in known if one is not None)

    @classmethod
    def of(cls, run: Run, ends: Collection[int | None], limit: int | None) -> Asking:
        """For a run whose model ends its answers with ``ends``, too."""
        from ftk_data import renderer

        return cls(renderer(run), run.tokenizer, run.media if run.processor is not None else None, ends, limit)

    def asked(self, prompt: Prompt) -> Asked:
        """Raises DataError for a prompt that the template cannot write, or that is longer than the model reads."""
        asked = self._asked(prompt)
        if self.limit and len(asked.ids) >= self.limit:
            raise DataError(f"the prompt has {len(asked.ids)} tokens, but the model reads {self.limit}. Shorten it")
        return asked

    def answered(self, prompt: Prompt) -> Asked:
        """A conversation as it is trained, with its last turn scored.

        Raises DataError when it does not end with an answer, or is longer than the model reads.
        """
        if not prompt.messages or prompt.messages[-1].role != "assistant":
            raise DataError("score: the conversation does not end with an answer")
        before = [replace(message, trained=False) for message in prompt.messages[:-1]]
        row = self.renderer.render([*before, replace(prompt.messages[-1], trained=True)], prompt.tools)[-1]
        asked = self._of(self._prompts.with_media(row, prompt.messages))
        if self.limit and len(asked.ids) > self.limit:
            raise DataError(f"the conversation has {len(asked.ids)} tokens, but the model reads {self.limit}")
        return asked

    def room(self, asked: Asked, most: int) -> int:
        """How many tokens the answer may have, of ``most``."""
        return min(most, self.limit - len(asked.ids)) if self.limit else most

    def _asked(self, prompt: Prompt) -> Asked:
        if prompt.text is None:
            return replace(self._of(self._prompts.row(prompt.messages, prompt.tools)), scored=())
        if isinstance(prompt.text, str):
            ids = self.tokenizer(prompt.text)["input_ids"] or [self.tokenizer.pad_token_id or 0]
        elif not prompt.text or not 0 <= min(prompt.text) <= max(prompt.text) < len(self.tokenizer):
            raise DataError(f"the prompt has a token that the model has not; it has {len(self.tokenizer)}")
        else:
            ids = prompt.text
        return Asked(list(ids), list(ids))

    def _of(self, row: Row) -> Asked:
        media = tuple(segment.media for segment in row if segment.media is not None)
        marks = self.media.placeholders if self.media is not None else {}
        short = [Segment(marks[one.media.kind], False) if one.media else one for one in row]
        batch = self._prompts.encoder.rows([row])
        ids = batch.ids_T.tolist()
        shorter = self._prompts.encoder.rows([short]).ids_T.tolist() if media else ids
        return Asked(ids, shorter, media, tuple(batch.trained_T.tolist()))
