"""One answer in the making: its tokens so far, its text, and whether it has ended."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from ftk import Reply

from ftk_hf_engine.picking import Picker
from ftk_hf_engine.pieces import Pieces


@dataclass(eq=False)
class Answer:
    """An answer to ``prompt`` (tokens) of at most ``room`` tokens.

    said: its text in pieces; ready: those that nobody has taken yet. error: why it will not be finished.
    adapter: whose weights answer; None is the run's own.
    """

    prompt: list[int]
    room: int
    picker: Picker
    pieces: Pieces
    adapter: str | None = None
    ready: deque[str] = field(default_factory=deque)
    said: list[str] = field(default_factory=list)
    reply: Reply | None = None
    error: BaseException | None = None

    @property
    def ended(self) -> bool:
        return self.reply is not None or self.error is not None

    def take(self, token: int) -> None:
        """The next token, which the picker has picked."""
        self._say(self.pieces.push(token))
        if self.pieces.stopped or self.pieces.count >= self.room:
            self.finish()

    def finish(self) -> None:
        """No more tokens come."""
        self._say(self.pieces.finish())
        finish, count = ("stop" if self.pieces.stopped else "length"), self.pieces.count
        meta: dict[str, object] = {"tokens": self.picker.tokens[:count]}
        if self.picker.sampling.logprobs is not None:
            meta["logprobs"] = self.picker.logprobs[:count]
        self.reply = Reply("".join(self.said), finish, len(self.prompt), count, meta)

    def _say(self, piece: str) -> None:
        if piece:
            self.said.append(piece)
            self.ready.append(piece)


def reply_of(answer: Answer) -> Reply:
    """What has become of an answer that has ended. Raises what went wrong with it."""
    if answer.error is not None:
        raise answer.error
    assert answer.reply is not None
    return answer.reply
