"""Rows that are longer than ``cutoff_len``, and rows that hold nothing to learn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from ftk import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ftk_data.encoding import Batch
    from ftk_data.options import DataOptions


class Fitted(NamedTuple):
    """What is left of a batch. K: the rows that are kept.

    rows_K: which row of the batch each came from. counts: how many rows were truncated, split, dropped and why.
    """

    ids_T: NDArray[np.int32]
    trained_T: NDArray[np.bool_]
    lengths_K: NDArray[np.int64]
    rows_K: NDArray[np.int64]
    counts: dict[str, int]


def fit(batch: Batch, options: DataOptions, where: Callable[[int], str]) -> Fitted:
    """Apply ``cutoff_policy`` and leave out rows without any trained token.

    ``where`` names a row of the batch for errors. Raises DataError for a long row under the policy ``error``.
    """
    limit = options.cutoff_len
    first_R, last_R = batch.starts[:-1], batch.starts[1:]
    rows_K = np.arange(len(first_R))
    first_K, last_K = first_R, last_R
    counts: dict[str, int] = {}
    long = np.flatnonzero(last_R - first_R > limit)
    if len(long):
        if options.cutoff_policy == "error":
            length = int(last_R[long[0]] - first_R[long[0]])
            raise DataError(
                f"{where(int(long[0]))}: has {length} tokens, more than cutoff_len {limit}. "
                "Raise it, or set cutoff_policy to truncate, drop or split"
            )
        name = {"truncate": "truncated", "drop": "dropped: too long", "split": "split"}[options.cutoff_policy]
        counts[name] = len(long)
        spans = [span for row in rows_K for span in _spans(batch, int(row), limit, options.cutoff_policy)]
        rows_K, first_K, last_K = np.array(spans, np.int64).reshape(-1, 3).T
    learnt = np.concatenate((np.zeros(1, np.int64), np.cumsum(batch.trained_T)))
    keep = learnt[last_K] > learnt[first_K]
    if not keep.all():
        counts["dropped: nothing to learn"] = int(len(keep) - keep.sum())
        rows_K, first_K, last_K = rows_K[keep], first_K[keep], last_K[keep]
    tokens = _positions(first_K, last_K, len(batch.ids_T))
    return Fitted(batch.ids_T[tokens], batch.trained_T[tokens], last_K - first_K, rows_K, counts)


def _spans(batch: Batch, row: int, limit: int, policy: str) -> Iterator[tuple[int, int, int]]:
    """The stretches (row, first, last) of a row that are kept."""
    first, last = int(batch.starts[row]), int(batch.starts[row + 1])
    if last - first <= limit:
        yield row, first, last
    elif policy == "truncate":
        turn = int(np.searchsorted(batch.ends, first + limit, side="right")) - 1
        whole = int(batch.ends[turn]) if turn >= 0 else 0
        yield row, first, whole if whole > first else first + limit
    elif policy == "split":
        for start in range(first, last, limit):
            yield row, start, min(start + limit, last)


def _positions(first_K: NDArray[np.int64], last_K: NDArray[np.int64], total: int) -> slice | NDArray[np.int64]:
    """The tokens of all stretches; a slice when that is everything, which needs no copy."""
    lengths = last_K - first_K
    if int(lengths.sum()) == total:
        return slice(None)
    ends = np.cumsum(lengths)
    return np.arange(int(lengths.sum())) + np.repeat(first_K - (ends - lengths), lengths)
