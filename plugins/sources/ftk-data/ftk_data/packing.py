"""Packing: several rows in one of ``cutoff_len`` tokens, so that little of a batch is padding.

Best fit, longest first (Ding et al. 2024, arXiv:2404.10830, section 3), over all rows at once. Rows of one length are
interchangeable, so what is placed is a length with its count, and the work grows with the number of different
lengths, not with the number of rows.

N: rows, P: packs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Packs(NamedTuple):
    """Which rows go together: pack p holds ``rows_N[starts[p]:starts[p + 1]]``, ascending (P + 1 starts)."""

    rows_N: NDArray[np.int64]
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts) - 1


def pack(lengths: Sequence[int] | NDArray[np.integer], capacity: int) -> Packs:
    """The packs of some rows, in the order of their first rows. Every length must be from 1 to ``capacity``."""
    lengths_N = np.asarray(lengths, np.int64)
    if not len(lengths_N):
        return Packs(np.empty(0, np.int64), np.zeros(1, np.int64))
    assert lengths_N.min() > 0
    assert lengths_N.max() <= capacity
    small = lengths_N.astype(np.uint16) if capacity < 2**16 else lengths_N  # numpy sorts 16 bits by radix
    by_length = np.argsort(small, kind="stable")[::-1]
    packs_N = np.empty(len(lengths_N), np.int64)
    packs_N[by_length] = _places(np.bincount(lengths_N, minlength=capacity + 1), capacity, len(lengths_N))
    return _grouped(packs_N)


def _places(counts: NDArray[np.int64], capacity: int, num: int) -> NDArray[np.int64]:
    """The pack of each row, longest first."""
    places_N = np.empty(num, np.int64)
    at = made = 0
    space = _Space(capacity)
    for length in np.flatnonzero(counts)[::-1].tolist():
        left = int(counts[length])
        while left:
            room = space.tightest(length)
            fits = (room or capacity) // length  # the tightest pack stays the tightest until it has no more room
            whole, rest = divmod(left, fits)
            wanted = whole + bool(rest)
            if room:
                packs = space.take(room, wanted)
            else:
                packs, made = np.arange(made, made + wanted), made + wanted
            placed = min(left, fits * len(packs))
            places_N[at : at + placed] = np.repeat(packs, fits)[:placed]
            rest = fits * len(packs) - placed
            space.give((room or capacity) - fits * length, packs[:-1] if rest else packs)
            if rest:
                space.give((room or capacity) - (fits - rest) * length, packs[-1:])
            at, left = at + placed, left - placed
    return places_N


class _Space:
    """The open packs by their free space. Which spaces there are is one bit each in an integer."""

    def __init__(self, capacity: int) -> None:
        self.bits = 0
        self.packs: list[list[NDArray[np.int64]]] = [[] for _ in range(capacity + 1)]

    def tightest(self, length: int) -> int:
        """The smallest free space that takes ``length``, 0 when no open pack does."""
        fitting = self.bits >> length
        return length + (fitting & -fitting).bit_length() - 1 if fitting else 0

    def take(self, space: int, most: int) -> NDArray[np.int64]:
        """Up to ``most`` packs with that free space."""
        waiting = self.packs[space]
        packs = waiting.pop()
        if len(packs) > most:
            waiting.append(packs[most:])
            packs = packs[:most]
        if not waiting:
            self.bits &= ~(1 << space)
        return packs

    def give(self, space: int, packs: NDArray[np.int64]) -> None:
        if space and len(packs):
            self.packs[space].append(packs)
            self.bits |= 1 << space


def _grouped(packs_N: NDArray[np.int64]) -> Packs:
    """Rows by pack, ascending inside; packs by their first row."""
    firsts_P = np.full(int(packs_N.max()) + 1, len(packs_N), np.int64)
    np.minimum.at(firsts_P, packs_N, np.arange(len(packs_N)))
    place_P = np.empty(len(firsts_P), np.int64)
    place_P[np.argsort(firsts_P, kind="stable")] = np.arange(len(firsts_P))
    places_N = place_P[packs_N]
    low = np.argsort(places_N.astype(np.uint16), kind="stable")  # two passes of 16 bits each beat one of 64
    rows_N = low[np.argsort((places_N[low] >> 16).astype(np.uint16), kind="stable")] if len(firsts_P) > 2**16 else low
    return Packs(rows_N, np.concatenate((np.zeros(1, np.int64), np.cumsum(np.bincount(places_N)))))


def packs(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """:func:`pack` as lists of row numbers."""
    return list(_as_lists(pack(lengths, capacity)))


def _as_lists(made: Packs) -> Iterator[list[int]]:
    rows, starts = made.rows_N.tolist(), made.starts.tolist()
    for first, last in pairwise(starts):
        yield rows[first:last]
