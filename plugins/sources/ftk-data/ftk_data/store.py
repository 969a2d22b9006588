"""Tokenised rows in flat arrays, which may lie on disk: five bytes a token and sixteen a row.

T: tokens of a piece or a row, N: rows.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from ftk import Media

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ftk_data.fitting import Fitted

AROUND, HELD = 2**15, 2**25
"""How many tokens a row brings into memory at least, because systems map what is around it, too; and after how many all
of that is given back: without it a training would seem to need as much memory as its rows take on disk."""
IGNORED = -100
"""The label that the loss leaves out."""


class TokenRow(NamedTuple):
    """One row: its tokens, labels (-100 is not trained; not shifted), the weight of each (None: all 1), its media."""

    ids_T: NDArray[np.int64]
    labels_T: NDArray[np.int64]
    weights_T: NDArray[np.float32] | None = None
    media: tuple[Media, ...] = ()


@dataclass(frozen=True)
class Piece:
    """Rows of tokens, one after the other.

    starts: where each row starts, with the end as the last (N + 1 numbers).
    examples_N: the number of the example that a row came from; rows of one example stay on one side of a split.
    roles_N: what a row is within its example, see :mod:`ftk_data.stages`. weights_T: None when all tokens weigh 1.
    media: row → what it shows, for rows that show something.
    """

    ids_T: NDArray[np.int32]
    trained_T: NDArray[np.bool_]
    starts: NDArray[np.int64]
    examples_N: NDArray[np.int64]
    roles_N: NDArray[np.int8]
    weights_T: NDArray[np.float32] | None = None
    media: Mapping[int, tuple[Media, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def release(self) -> None:
        """Give back the memory of a piece that lies on disk; what is used again is read again."""
        held: Any = self.ids_T
        while held is not None and not isinstance(held, mmap.mmap):
            held = getattr(held, "base", None)
        if held is not None and hasattr(mmap, "MADV_DONTNEED"):
            held.madvise(mmap.MADV_DONTNEED)

    def row(self, index: int) -> TokenRow:
        span = slice(int(self.starts[index]), int(self.starts[index + 1]))
        ids_T = self.ids_T[span].astype(np.int64)
        labels_T = np.where(self.trained_T[span], ids_T, IGNORED)
        weights_T = None if self.weights_T is None else np.asarray(self.weights_T[span])
        return TokenRow(ids_T, labels_T, weights_T, self.media.get(index, ()))


class Store:
    """The rows of some pieces, in their order. N: all rows."""

    def __init__(self, pieces: Iterable[Piece]) -> None:
        self.pieces = tuple(piece for piece in pieces if len(piece))
        self.firsts = np.cumsum([0, *(len(piece) for piece in self.pieces)])
        self._read = 0

    def __len__(self) -> int:
        return int(self.firsts[-1])

    @cached_property
    def lengths_N(self) -> NDArray[np.int64]:
        return _joined([np.diff(piece.starts) for piece in self.pieces])

    @cached_property
    def trained_N(self) -> NDArray[np.int64]:
        """How many tokens of each row are trained. Reads all rows."""
        return _joined([_sums(piece) for piece in self.pieces])

    @property
    def examples_N(self) -> NDArray[np.int64]:
        return _joined([piece.examples_N for piece in self.pieces])

    @property
    def roles_N(self) -> NDArray[np.int8]:
        return np.concatenate([np.empty(0, np.int8), *(piece.roles_N for piece in self.pieces)])

    @property
    def num_tokens(self) -> int:
        return int(self.lengths_N.sum())

    def row(self, index: int) -> TokenRow:
        number = int(np.searchsorted(self.firsts, index, side="right")) - 1
        row = self.pieces[number].row(int(index) - int(self.firsts[number]))
        self._read += max(len(row.ids_T), AROUND)
        if self._read > HELD:
            self._read = 0
            for piece in self.pieces:
                piece.release()
        return row


def _sums(piece: Piece) -> NDArray[np.int64]:
    learnt = np.concatenate((np.zeros(1, np.int64), np.cumsum(piece.trained_T, dtype=np.int64)))
    sums = np.diff(learnt[piece.starts])
    piece.release()
    return sums


def _joined(parts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate([np.empty(0, np.int64), *parts])


def collected(batches: Iterable[tuple[NDArray[np.int64], NDArray[np.int8], Fitted]]) -> Piece:
    """The piece of fitted batches, each with the example numbers of its rows and what they are in them."""
    made = list(batches)
    media: dict[int, tuple[Media, ...]] = {}
    first = 0
    for *_, fitted in made:
        media |= {first + row: shown for row, shown in fitted.media.items()}
        first += len(fitted.lengths_K)
    weighty = any(fitted.weights_T is not None for *_, fitted in made)
    return Piece(
        np.concatenate([np.empty(0, np.int32), *(fitted.ids_T for *_, fitted in made)]),
        np.concatenate([np.empty(0, bool), *(fitted.trained_T for *_, fitted in made)]),
        np.cumsum(np.concatenate([np.zeros(1, np.int64), *(fitted.lengths_K for *_, fitted in made)])),
        np.concatenate([np.empty(0, np.int64), *(numbers_R[fitted.rows_K] for numbers_R, _, fitted in made)]),
        np.concatenate([np.empty(0, np.int8), *(roles_R[fitted.rows_K] for _, roles_R, fitted in made)]),
        np.concatenate([_weights(fitted) for *_, fitted in made]) if weighty else None,
        media,
    )


def _weights(fitted: Fitted) -> NDArray[np.float32]:
    return np.ones(len(fitted.ids_T), np.float32) if fitted.weights_T is None else fitted.weights_T


def joined(stores: Sequence[Store]) -> Store:
    """Several stores as one, their examples renumbered so that they stay apart."""
    pieces: list[Piece] = []
    offset = 0
    for store in stores:
        last = -1
        for piece in store.pieces:
            last = max(last, int(piece.examples_N.max(initial=-1)))
            pieces.append(replace(piece, examples_N=piece.examples_N + offset) if offset else piece)
        offset += last + 1
    return Store(pieces)


def media_to_json(media: Mapping[int, tuple[Media, ...]]) -> str:
    """The media of a piece as text. Their sources are paths or addresses, of a video's frames as well: bytes have been
    put into files before.
    """
    return json.dumps({row: [[one.kind, one.source] for one in shown] for row, shown in media.items()})


def media_from_json(text: str) -> dict[int, tuple[Media, ...]]:
    """What :func:`media_to_json` wrote."""
    rows: dict[str, list[Any]] = json.loads(text)
    return {int(row): tuple(_medium(*one) for one in shown) for row, shown in rows.items()}


def _medium(kind: Any, source: Any) -> Media:
    return Media(kind, tuple(source) if isinstance(source, list) else source)
