"""How units become the rows of a stage while they stream: singly, packed, cut from one stream, or with the row before.

The rows are those of :mod:`ftk_data.sequences`. T: tokens of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ftk_data.options import DataOptions
from ftk_data.packing import packs
from ftk_data.sequences import FeedbackRows, PairRows, PromptRows, TokenRows, together
from ftk_data.stages import CHAT, FEEDBACK, PAIRS, PROMPTS, TEXT, Stage
from ftk_data.store import IGNORED, Store
from ftk_data.stream_order import Arranging, Made
from ftk_data.stream_source import Unit

WINDOW = 64
"""So many times ``cutoff_len`` tokens are packed at once: the last pack of a window is all that is lost by it."""

State = Mapping[str, Any]
Next = Callable[[], Unit | None]
FIRST, BOTH = np.zeros(1, np.int64), np.arange(2)
SINGLY: Mapping[Stage, type[TokenRows]] = {CHAT: TokenRows, TEXT: TokenRows, PAIRS: PairRows, PROMPTS: PromptRows}


def arranging(stage: Stage, options: DataOptions) -> Arranging:
    """How the rows of a stage are put together."""
    if stage is FEEDBACK:
        return WithTheOneBefore(options.cutoff_len)
    if stage is TEXT and options.packing is not False and not options.neat_packing:
        return Blocks(options.cutoff_len)
    if stage in (CHAT, TEXT) and (options.packing or options.neat_packing):
        return Packed(options.cutoff_len)
    return Singly(SINGLY[stage])


def _some(unit: Next) -> Unit:
    """The next unit, of the next epoch if need be; an epoch without any is an error."""
    while (found := unit()) is None:
        pass
    return found


class Singly:
    """A row for each unit."""

    def __init__(self, kind: type[TokenRows]) -> None:
        self.kind = kind

    def next(self, unit: Next) -> Made:
        one = _some(unit)
        return Made(self.kind(Store([one.piece]), FIRST).row(0), one.num_tokens, one.num_trained)

    @property
    def state(self) -> State:
        return {"ids": ()}

    def go_on(self, held: Sequence[Unit], state: State) -> None:
        pass


class WithTheOneBefore:
    """Feedback, whose mismatched answer is that of the row before; the very first row takes that of the second."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.before: Unit | None = None
        self.waiting: Unit | None = None

    def next(self, unit: Next) -> Made:
        one, self.waiting = self.waiting or _some(unit), None
        if self.before is None:
            self.before = self.waiting = _some(unit)
        row = FeedbackRows(Store([self.before.piece, one.piece]), BOTH, self.size).row(1)
        self.before = one
        return Made(row, one.num_tokens, one.num_trained)

    @property
    def state(self) -> State:
        return {"ids": tuple(one.id for one in (self.before, self.waiting) if one)}

    def go_on(self, held: Sequence[Unit], state: State) -> None:
        self.before, self.waiting = (*held, None, None)[:2]


class Packed:
    """Several units in a row, isolated from each other. A window of them is packed at once; none spans two epochs."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._open((), 0)

    def _open(self, window: Sequence[Unit], at: int) -> None:
        self.window, self.at = window, at
        self.ids = tuple(one.id for one in window)
        self.packs = packs([one.num_tokens for one in window], self.size)

    def next(self, unit: Next) -> Made:
        if self.at >= len(self.packs):
            self._open(self._window(unit), 0)
        members = [self.window[number] for number in self.packs[self.at]]
        self.at += 1
        made = together([one.piece.row(0) for one in members])
        return Made(made, sum(one.num_tokens for one in members), sum(one.num_trained for one in members))

    def _window(self, unit: Next) -> list[Unit]:
        window = [_some(unit)]
        num_tokens = window[0].num_tokens
        while num_tokens < WINDOW * self.size and (one := unit()) is not None:
            window.append(one)
            num_tokens += one.num_tokens
        return window

    @property
    def state(self) -> State:
        return {"ids": self.ids, "at": self.at}

    def go_on(self, held: Sequence[Unit], state: State) -> None:
        self._open(held, state["at"])


class Blocks:
    """All units as one stream of tokens, cut into rows of one size; the last row of an epoch is shorter."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.rest: Unit | None = None
        self.at = 0

    def next(self, unit: Next) -> Made:
        parts: list[tuple[Any, Any]] = []
        room = self.size
        while room:
            if self.rest is None:
                self.rest, self.at = (unit() if parts else _some(unit)), 0
                if self.rest is None:
                    break
            span = slice(self.at, self.at + room)
            parts.append((self.rest.piece.ids_T[span], self.rest.piece.trained_T[span]))
            room -= len(parts[-1][0])
            self.at += len(parts[-1][0])
            if self.at == self.rest.num_tokens:
                self.rest = None
        input_ids = np.concatenate([ids_T for ids_T, _ in parts]).astype(np.int64)
        labels = np.where(np.concatenate([trained_T for _, trained_T in parts]), input_ids, IGNORED)
        return Made({"input_ids": input_ids, "labels": labels}, len(labels), int((labels != IGNORED).sum()))

    @property
    def state(self) -> State:
        return {"ids": (self.rest.id,) if self.rest else (), "at": self.at}

    def go_on(self, held: Sequence[Unit], state: State) -> None:
        self.rest, self.at = next(iter(held), None), state["at"]
