"""The rows of a data set as they are needed: a stretch of the source at a time, from any place on.

What is mixed, shuffled and packed are units: a row, or the two rows of a pair.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from types import GeneratorType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from ftk import CheckpointError, DataError

from ftk_data.reading import Reader
from ftk_data.stages import PAIRS
from ftk_data.store import Piece

if TYPE_CHECKING:
    from ftk.types import Rows

    from ftk_data.work import Work

STRETCH = 512
"""Rows of a source that are made at once."""
GAP = 1024
"""Rows between two wanted ones that are read and thrown away; beyond that, seeking the next one is quicker."""
ENOUGH = 2**31
"""More malformed rows than a reader tells."""

Id = tuple[int, int, int]
"""Where a unit comes from: (number of the data set, row of its source, which unit of that row)."""


class Unit(NamedTuple):
    """Rows that stay together: one, or the chosen and the rejected one of a pair."""

    id: Id
    piece: Piece

    @property
    def num_tokens(self) -> int:
        return len(self.piece.ids_T)

    @property
    def num_trained(self) -> int:
        return int(np.count_nonzero(self.piece.trained_T))


class Place(NamedTuple):
    """How far a source has been taken.

    first: where the stretch begins in which the next unit is. taken: how many units of it are gone. passes: how often
    the source has been gone through. counts: what became of the rows before the stretch, in the first pass.
    seen: the same with those of the stretch.
    """

    first: int
    taken: int
    passes: int
    counts: Mapping[str, int]
    seen: Mapping[str, int]


class Stretch(NamedTuple):
    """Some rows of a source, made. edges: which rows of the piece a unit has, for unit u from u to u + 1."""

    piece: Piece
    edges: Sequence[int]
    ids: Sequence[Id]
    counts: Mapping[str, int]
    last: bool

    def unit(self, number: int) -> Unit:
        return Unit(self.ids[number], _part(self.piece, self.edges[number], self.edges[number + 1]))


class UnitSource:
    """The units of one data set, in the order of its source.

    work: makes the rows. start: the first row of the source that belongs to the training. place: where to go on.
    """

    def __init__(self, number: int, work: Work, start: int = 0, place: Place | None = None) -> None:
        self.number, self.work, self.start = number, work, start
        self.first, self.taken, self.passes, self._counts, self._seen = place or Place(start, 0, 0, {}, {})
        self._stretch: Stretch | None = None

    @property
    def name(self) -> str:
        return self.work.reader.dataset.name

    @property
    def place(self) -> Place:
        return Place(self.first, self.taken, self.passes, self._counts, self._seen)

    def look(self) -> Stretch:
        """The stretch at the place, made if it has not been. Raises DataError as the reader and the policies do."""
        if self._stretch is None:
            self._stretch = self._make(self.first)
            if not self.passes:
                self._seen = dict(Counter(self._counts) + Counter(self._stretch.counts))
        return self._stretch

    def has_more(self) -> bool:
        """Whether this pass has another unit; reads on until it finds one."""
        while self.taken >= len((stretch := self.look()).ids):
            if stretch.last:
                return False
            self._counts = self._seen
            self.first, self.taken, self._stretch = self.first + STRETCH, 0, None
        return True

    def take(self) -> Unit:
        """The next unit; there must be one."""
        self.taken += 1
        return self.look().unit(self.taken - 1)

    def rewind(self) -> None:
        """Begin another pass, in which malformed rows are not told again."""
        self.work.reader.shown = ENOUGH
        self._counts = self._seen
        if self.first != self.start:
            self._stretch = None
        self.first, self.taken, self.passes = self.start, 0, self.passes + 1

    def counts_before(self, row: int) -> dict[str, int]:
        """What became of the rows before one; they are made once more, without a word on malformed ones."""
        self.work.reader.shown = ENOUGH
        return self.work.piece(0, row)[1]

    def _make(self, first: int) -> Stretch:
        piece, counts = self.work.piece(first, first + STRETCH)
        edges, ids = self._units(piece)
        return Stretch(piece, edges, ids, counts, self.work.reader.ended)

    def _units(self, piece: Piece) -> tuple[list[int], list[Id]]:
        """Where the units of a piece begin, and whence they come."""
        rows = piece.examples_N.tolist()
        edges = list(range(0, len(rows) + 1, 2 if self.work.stage is PAIRS else 1))
        ids: list[Id] = []
        for edge in edges[:-1]:
            again = bool(ids) and ids[-1][1] == rows[edge]
            ids.append((self.number, rows[edge], ids[-1][2] + 1 if again else 0))
        return edges, ids

    def again(self, ids: Collection[Id]) -> Iterator[Unit]:
        """Units that have been taken before, made once more; of the source only their rows are read.

        Raises CheckpointError when they are not there any more.
        """
        wanted = set(ids)
        numbers = sorted({row for _, row, _ in wanted})
        work, old = copy.copy(self.work), self.work.reader
        work.reader = Reader(old.dataset, old.wanted, replace(old.options, max_samples=None), 0)
        work.reader.rows = Picked(old.rows, numbers)
        for first in range(0, len(numbers), STRETCH):
            piece, _ = work.piece(first, min(first + STRETCH, len(numbers)))
            piece = replace(piece, examples_N=np.array(numbers, np.int64)[piece.examples_N])
            edges, made = self._units(piece)
            for edge, one in zip(pairwise(edges), made, strict=True):
                if one in wanted:
                    wanted.remove(one)
                    yield Unit(one, _part(piece, *edge))
        if wanted:
            lost = min(row for _, row, _ in wanted)
            raise CheckpointError(
                f"{old.where(lost)}: gives other rows than when the checkpoint was written. "
                "Put the data back as it was, or train from the checkpoint's model in another output_dir"
            )


def _part(piece: Piece, first: int, last: int) -> Piece:
    """Some rows of a piece, copied: a part that only points into it would keep all of it in memory."""
    span = slice(int(piece.starts[first]), int(piece.starts[last]))
    return Piece(
        piece.ids_T[span].copy(), piece.trained_T[span].copy(), piece.starts[first : last + 1] - piece.starts[first],
        piece.examples_N[first:last].copy(), piece.roles_N[first:last].copy(),
        None if piece.weights_T is None else piece.weights_T[span].copy(),
        {row - first: piece.media[row] for row in range(first, last) if row in piece.media},
    )  # fmt: skip


class Picked:
    """Some rows of another source, ascending. They have been read before, so an error in one is final."""

    def __init__(self, rows: Rows, numbers: Sequence[int]) -> None:
        self.rows, self.numbers = rows, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return self.at(0)

    def at(self, index: int) -> Iterator[Mapping[str, Any]]:
        at = getattr(self.rows, "at", None)
        rows, here = iter(self.rows), 0
        for number in self.numbers[index:]:
            if at is not None and (number - here > GAP or (number and not here)):
                rows = at(number)
            elif not _skipped(rows, number - here):
                if at is None:
                    return
                rows = at(number)
            try:
                yield next(rows)
            except StopIteration:
                return
            here = number + 1

    def where(self, index: int) -> str:
        return self.rows.where(self.numbers[index])

    def fingerprint(self) -> str:
        return self.rows.fingerprint()


def _skipped(rows: Iterator[Any], num: int) -> bool:
    """Whether reading can go on after passing over some rows, of which some may not parse."""
    for _ in range(num):
        try:
            next(rows)
        except StopIteration:
            return False
        except DataError:
            if isinstance(rows, GeneratorType):  # is at its end after it has raised
                return False
    return True
