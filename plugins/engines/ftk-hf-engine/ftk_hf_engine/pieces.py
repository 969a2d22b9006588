"""From tokens to text, piece by piece: the one way in which this engine decodes, streamed or not."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

UNFINISHED = "\ufffd"
"""What a decoder writes for bytes that are no whole character yet."""


class Pieces:
    """Takes the tokens of one answer, gives text that never has to be taken back.

    Held back are bytes of an unfinished character, and text that may be the beginning of a stop string.
    ends: the tokens that end an answer; their text is left out unless ``skip`` is false. stops: strings that end it.
    """

    def __init__(self, tokenizer: Any, ends: Collection[int], stops: Collection[str], skip: bool) -> None:
        self.tokenizer, self.ends, self.stops, self.skip = tokenizer, ends, stops, skip
        self.count = 0
        self.stopped = False
        self._tokens: list[int] = []
        self._shown = self._read = 0
        self._held = ""

    def push(self, token: int) -> str:
        """The text that is certain with one more token; nothing once the answer has ended."""
        if self.stopped:
            return ""
        self.count += 1
        if token in self.ends:
            self.stopped = True
            return self._release(self._rest() + ("" if self.skip else self._decode([token])), last=True)
        self._tokens.append(token)
        before, after = self._decode(self._tokens[self._shown : self._read]), self._decode(self._tokens[self._shown :])
        if len(after) <= len(before) or after.endswith(UNFINISHED):
            return ""
        # decoding starts at the last piece again, because some tokenizers write a first token without its space
        self._shown, self._read = self._read, len(self._tokens)
        return self._release(after[len(before) :])

    def finish(self) -> str:
        """What was held back, when no more tokens come."""
        return "" if self.stopped else self._release(self._rest(), last=True)

    def text(self, tokens: Iterable[int]) -> str:
        """The whole answer in one go."""
        return "".join(self.push(token) for token in tokens) + self.finish()

    def _decode(self, tokens: list[int]) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=self.skip, clean_up_tokenization_spaces=False))

    def _rest(self) -> str:
        before, after = self._decode(self._tokens[self._shown : self._read]), self._decode(self._tokens[self._shown :])
        self._shown = self._read = len(self._tokens)
        return after[len(before) :]

    def _release(self, text: str, last: bool = False) -> str:
        text = self._held + text
        found = [text.index(stop) for stop in self.stops if stop in text]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        keep = 0 if last else max((_overlap(text, stop) for stop in self.stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of ``text`` are the beginning of ``stop``."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
