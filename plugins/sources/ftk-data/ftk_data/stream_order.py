"""The one sequence of a streamed training: mixed, shuffled, repeated, put together as rows.

It depends on data, options and seed alone, and can go on after any row. What a part keeps from one row to the next is
small and stands in its ``state``; units in waiting are named there by their ``Id``, because they can be made again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from ftk import DataError

from ftk_data.stream_source import Id, Unit, UnitSource

if TYPE_CHECKING:
    from collections.abc import Callable

    from ftk_data.sequences import RowDict

DRAWS = 1024
"""Random numbers that are drawn at once."""
State = Mapping[str, Any]
Edit = Id | int
"""What happened to a shuffle buffer: a unit came to its end, or the one at a place left and the last one took it."""


class Arranging(Protocol):
    """What turns units into the rows of a stage. See :mod:`ftk_data.stream_rows`."""

    def next(self, unit: Callable[[], Unit | None]) -> Made:
        """The next row. ``unit()`` is the next unit, None once at the end of each epoch."""

    @property
    def state(self) -> State:
        """Values for JSON, of which ``ids`` are those of the units that it holds."""

    def go_on(self, held: Sequence[Unit], state: State) -> None:
        """Continue from a state, with the units that it names."""


class Made(NamedTuple):
    """A row, and what of it is the model's work; documents that follow each other count in full."""

    row: RowDict
    num_tokens: int
    num_trained: int


@dataclass(frozen=True)
class Order:
    """What decides the sequence beside the data. ``mix_seed`` is for whose turn it is, ``seed`` for the shuffling."""

    strategy: str = "concat"
    shares: tuple[float, ...] | None = None
    mix_seed: int = 0
    buffer_size: int = 1
    seed: int = 0


class Turns:
    """Whose turn it is when data sets are interleaved; what ``ftk_data.mixing`` draws, from any turn on."""

    def __init__(self, num: int, shares: Sequence[float] | None, seed: int) -> None:
        self.num, self.seed = num, seed
        self.chances = None if shares is None else np.array(shares) / sum(shares)
        self._block, self._drawn = -1, [0]

    def __getitem__(self, turn: int) -> int:
        if self.chances is None:
            return turn % self.num
        block = turn // DRAWS
        if block != self._block:
            random = np.random.Generator(np.random.PCG64(self.seed).advance(block * DRAWS))  # a number for each choice
            self._block, self._drawn = block, random.choice(self.num, size=DRAWS, p=self.chances).tolist()
        return self._drawn[turn % DRAWS]


class Mix:
    """The units of all data sets for one epoch after the other, as :func:`ftk_data.mixing.mixed` orders rows."""

    def __init__(self, sources: Sequence[UnitSource], order: Order, state: State | None = None) -> None:
        self.sources, self.order = sources, order
        self.strategy = order.strategy if len(sources) > 1 else "concat"
        self.turns = Turns(len(sources), order.shares, order.mix_seed)
        self.never = {which for which, share in enumerate(order.shares or ()) if not share}
        self.turn, self.used_up, self.empty = 0, frozenset[int](), frozenset[int]()
        self.began = False
        if state is not None:
            self.began, self.turn = state["began"], state["turn"]
            self.used_up, self.empty = frozenset(state["used_up"]), frozenset(state["empty"])

    @property
    def state(self) -> State:
        used_up, empty = sorted(self.used_up), sorted(self.empty)
        return {"began": self.began, "turn": self.turn, "used_up": used_up, "empty": empty}

    def restart(self) -> None:
        """Begin another epoch."""
        for source in self.sources:
            source.rewind()
        self.turn, self.used_up, self.began = 0, frozenset(), False

    def next(self) -> Unit | None:
        """The next unit, None when the epoch is over. Raises DataError as the readers and the policies do."""
        if self.strategy == "concat":
            while self.turn < len(self.sources):
                if self.sources[self.turn].has_more():
                    return self.sources[self.turn].take()
                self.turn += 1
            return None
        if not self.began:
            self.empty = frozenset(which for which, source in enumerate(self.sources) if not source.has_more())
            self.used_up, self.began = self.empty, True
        while not self._over():
            which = self.turns[self.turn]
            self.turn += 1
            if which in self.used_up and (which in self.empty or self.strategy != "interleave_over"):
                continue
            return self._taken(which)
        return None

    def _taken(self, which: int) -> Unit:
        source = self.sources[which]
        if not source.has_more():
            source.rewind()
            source.has_more()
        unit = source.take()
        if not source.has_more():
            self.used_up |= {which}
        return unit

    def _over(self) -> bool:
        over = len(self.used_up | self.never) == len(self.sources)
        if self.strategy == "interleave_under" and self.used_up:
            over = True
        in_round = self.order.shares is None and self.strategy != "interleave_once" and self.turn % len(self.sources)
        return over and not in_round


class Shuffle:
    """Each unit is drawn at random from a buffer, of size 1 in order. Every epoch draws otherwise.

    edits: what happened to the buffer since somebody last took note.
    """

    def __init__(self, mix: Mix, order: Order, epoch: int, buffer: list[Unit], draws: int = 0) -> None:
        self.mix, self.order, self.epoch, self.draws = mix, order, epoch, draws
        self.buffer = buffer
        self.edits: list[Edit] = []
        self._block, self._drawn = -1, [0.0]

    def restart(self, epoch: int) -> None:
        self.mix.restart()
        self.epoch, self.draws, self._block = epoch, 0, -1

    def next(self) -> Unit | None:
        """The next unit, None when the epoch is over."""
        while len(self.buffer) < self.order.buffer_size and (unit := self.mix.next()):
            self.buffer.append(unit)
            self.edits.append(unit.id)
        if not self.buffer:
            return None
        place = int(self._random() * len(self.buffer))
        unit, self.buffer[place] = self.buffer[place], self.buffer[-1]
        self.buffer.pop()
        self.edits.append(place)
        return unit

    def _random(self) -> float:
        block = self.draws // DRAWS
        if block != self._block:
            random = np.random.default_rng([self.order.seed, self.epoch, block])
            self._block, self._drawn = block, random.random(DRAWS).tolist()
        self.draws += 1
        return self._drawn[(self.draws - 1) % DRAWS]


def edited(buffer: list[Id], edits: Sequence[Edit]) -> None:
    """Do to a buffer of ids what was done to the one of units."""
    for edit in edits:
        if isinstance(edit, int):
            buffer[edit] = buffer[-1]
            buffer.pop()
        else:
            buffer.append(edit)


class Mark(NamedTuple):
    """What is needed to go on after a row: the edits since the row before, and the state of all else."""

    edits: Sequence[Edit]
    state: State


class Totals(NamedTuple):
    """Of all rows given out so far."""

    rows: int = 0
    tokens: int = 0
    trained: int = 0
    longest: int = 0

    def and_one(self, made: Made) -> Totals:
        return Totals(
            self.rows + 1, self.tokens + made.num_tokens, self.trained + made.num_trained,
            max(self.longest, made.num_tokens),
        )  # fmt: skip


class Course:
    """The rows of a training from a place on, without end. It is gone through once.

    sources: each at its place. state: what :class:`Mark` noted, with the ``buffer``; None is the beginning.
    """

    def __init__(
        self, sources: Sequence[UnitSource], order: Order, arranging: Arranging, state: State | None = None
    ) -> None:
        self.sources, self.arranging = sources, arranging
        self.given, self.totals = 0, Totals()
        if state is None:
            self.shuffle = Shuffle(Mix(sources, order), order, 0, [])
            return
        units = self._again([*state["buffer"], *state["arranging"]["ids"]])
        buffer = [units[_id(one)] for one in state["buffer"]]
        self.shuffle = Shuffle(Mix(sources, order, state["mix"]), order, state["epoch"], buffer, state["draws"])
        self.given, self.totals = state["given"], Totals(*state["totals"])
        arranging.go_on([units[_id(one)] for one in state["arranging"]["ids"]], state["arranging"])

    def _again(self, ids: Sequence[Any]) -> Mapping[Id, Unit]:
        wanted = {_id(one) for one in ids}
        sources = [(source, {one for one in wanted if one[0] == source.number}) for source in self.sources]
        return {unit.id: unit for source, its in sources for unit in source.again(its)}

    def __iter__(self) -> Iterator[tuple[Made, Mark]]:
        """Raises DataError when an epoch has no row, and as the readers and the policies do."""
        while True:
            made = self.arranging.next(self._unit)
            self.totals = self.totals.and_one(made)
            edits, self.shuffle.edits = self.shuffle.edits, []
            yield made, Mark(edits, self.state)

    @property
    def state(self) -> State:
        """All that is needed to go on but what is in the buffer."""
        return {
            "epoch": self.shuffle.epoch, "draws": self.shuffle.draws, "given": self.given, "totals": self.totals,
            "mix": self.shuffle.mix.state, "sources": [source.place for source in self.sources],
            "arranging": self.arranging.state,
        }  # fmt: skip

    def _unit(self) -> Unit | None:
        """The next unit, None at the end of each epoch."""
        unit = self.shuffle.next()
        if unit is not None:
            self.given += 1
            return unit
        if not self.given:
            raise DataError(f"train: no row is left to train on{why(self.sources)}")
        self.given = 0
        self.shuffle.restart(self.shuffle.epoch + 1)
        return None


def why(sources: Sequence[UnitSource]) -> str:
    """What became of the rows, for an error: ``" (alpaca: 12 dropped: too long)"``."""
    counts = [(source.name, source.place.seen) for source in sources]
    reasons = [f"{name}: {num} {what}" for name, seen in counts for what, num in seen.items() if what not in OF_ALL]
    reasons += [f"{name}: has no rows" for name, seen in counts if not seen.get("rows")]
    return f" ({'; '.join(reasons)})" if reasons else ""


OF_ALL = ("rows", "used")
"""Counts that are no reason why rows are gone."""


def _id(one: Sequence[int]) -> Id:
    """An id, which JSON gives back as a list."""
    dataset, row, unit = one
    return dataset, row, unit
