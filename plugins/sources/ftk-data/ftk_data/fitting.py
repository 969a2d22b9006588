"""Rows that are longer than ``cutoff_len``, and rows that hold nothing to learn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from ftk import DataError, Media

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ftk_data.encoding import Batch
    from ftk_data.options import DataOptions

COUNTED = {"truncate": "truncated", "drop": "dropped: too long", "split": "split"}
"""What the report says of a row that was too long."""
BARE = "dropped: nothing to learn"
BARE_BEFORE_CUT = "dropped: nothing to learn within cutoff_len"
OVERSIZED = "dropped: an image, video or audio is longer than cutoff_len"


class Fitted(NamedTuple):
    """What is left of a batch. K: the rows that are kept.

    rows_K: which row of the batch each came from. changed: what happened to rows (``truncated``, ``split``,
    ``dropped: ...``) → to which of the batch. weights_T, media: as :class:`ftk_data.store.Piece` has them.
    """

    ids_T: NDArray[np.int32]
    trained_T: NDArray[np.bool_]
    lengths_K: NDArray[np.int64]
    rows_K: NDArray[np.int64]
    changed: Mapping[str, NDArray[np.int64]]
    weights_T: NDArray[np.float32] | None = None
    media: Mapping[int, tuple[Media, ...]] = {}

    def only(self, kept_K: NDArray[np.bool_]) -> Fitted:
        """The same with only these of the kept rows."""
        if kept_K.all():
            return self
        firsts = np.concatenate((np.zeros(1, np.int64), np.cumsum(self.lengths_K)[:-1]))[kept_K]
        lengths = self.lengths_K[kept_K]
        tokens = _positions(firsts, firsts + lengths, len(self.ids_T))
        places = np.cumsum(kept_K) - 1
        return Fitted(
            self.ids_T[tokens], self.trained_T[tokens], lengths, self.rows_K[kept_K], self.changed,
            None if self.weights_T is None else self.weights_T[tokens],
            {int(places[row]): shown for row, shown in self.media.items() if kept_K[row]},
        )  # fmt: skip


def fit(batch: Batch, options: DataOptions, where: Callable[[int], str], *, answered: bool = True) -> Fitted:
    """Apply ``cutoff_policy`` and leave out rows without any trained token.

    Rows that need none (not ``answered``) are prompts with a reference answer, of which the prompt counts as length.
    ``where`` names a row of the batch for errors. Raises DataError for a long row under the policy ``error``.
    """
    limit = options.cutoff_len
    first_R, last_R = batch.starts[:-1], batch.starts[1:]
    rows_K = np.arange(len(first_R))
    first_K, last_K = first_R, last_R
    changed: dict[str, NDArray[np.int64]] = {}
    lengths_R = last_R - first_R if answered else _prompt_lengths(batch)
    long = np.flatnonzero(lengths_R > limit)
    if len(long):
        if options.cutoff_policy == "error":
            length = int(lengths_R[long[0]])
            raise DataError(
                f"{where(int(long[0]))}: has {length} tokens, more than cutoff_len {limit}. "
                "Raise it, or set cutoff_policy to truncate, drop or split"
            )
        changed[COUNTED[options.cutoff_policy]] = long
        too_long = set(long.tolist())
        policies = ("" if row not in too_long else options.cutoff_policy for row in rows_K.tolist())
        spans = [span for row, policy in enumerate(policies) for span in _spans(batch, row, limit, policy)]
        rows_K, first_K, last_K = np.array(spans, np.int64).reshape(-1, 3).T
    learnt = np.concatenate((np.zeros(1, np.int64), np.cumsum(batch.trained_T, dtype=np.int64)))
    keep = learnt[last_K] > learnt[first_K]
    bare = np.empty(0, np.int64)
    if answered and not keep.all():
        bare = np.unique(rows_K[~keep])
        rows_K, first_K, last_K = rows_K[keep], first_K[keep], last_K[keep]
    lost = np.setdiff1d(np.arange(len(first_R)), rows_K)
    if options.cutoff_policy != "drop" and len(oversized := _oversized(batch, limit)):
        changed[OVERSIZED] = oversized if options.cutoff_policy == "split" else np.intersect1d(oversized, lost)
        lost = np.setdiff1d(lost, oversized)
    lost = np.setdiff1d(lost, changed.get(COUNTED["drop"], bare[:0]))
    changed |= _reasons(lost, bare, long if options.cutoff_policy == "truncate" else None)
    tokens = _positions(first_K, last_K, len(batch.ids_T))
    return Fitted(
        batch.ids_T[tokens], batch.trained_T[tokens], last_K - first_K, rows_K, changed,
        None if batch.weights_T is None else batch.weights_T[tokens], _media_of(batch, first_K, last_K),
    )  # fmt: skip


def _reasons(
    lost: NDArray[np.int64], bare: NDArray[np.int64], cut: NDArray[np.int64] | None
) -> Mapping[str, NDArray[np.int64]]:
    """Why rows are lost that no policy dropped: they hold nothing to learn, or nothing in front of where they were cut.

    bare: the rows of which something held nothing to learn; when they were not cut but split, that is counted, too.
    """
    if cut is None:
        reasons = {BARE: np.union1d(lost, bare)}
    else:
        reasons = {BARE: np.setdiff1d(lost, cut), BARE_BEFORE_CUT: np.intersect1d(lost, cut)}
    return {reason: rows for reason, rows in reasons.items() if len(rows)}


def _spans(batch: Batch, row: int, limit: int, policy: str) -> Iterator[tuple[int, int, int]]:
    """The stretches (row, first, last) of a row that are kept; without a policy all of it."""
    first, last = int(batch.starts[row]), int(batch.starts[row + 1])
    if not policy:
        yield row, first, last
    elif policy == "truncate":
        turn = int(np.searchsorted(batch.ends, first + limit, side="right")) - 1
        whole = int(batch.ends[turn]) if turn >= 0 else 0
        end = whole if whole > first else _before_medium(batch, first, first + limit)
        if end > first:
            yield row, first, end
    elif policy == "split":
        while first < last:
            end = min(_before_medium(batch, first, min(first + limit, last)), last)
            if end == first:  # a medium longer than the limit can stand in no row
                return
            yield row, first, end
            first = end


def _prompt_lengths(batch: Batch) -> NDArray[np.int64]:
    """How many tokens each row has before its first trained one."""
    trained = np.append(np.flatnonzero(batch.trained_T), len(batch.ids_T))
    first_R, last_R = batch.starts[:-1], batch.starts[1:]
    until_R: NDArray[np.int64] = np.minimum(trained[np.searchsorted(trained, first_R)], last_R)
    return until_R - first_R


def _oversized(batch: Batch, limit: int) -> NDArray[np.int64]:
    """The rows with a medium that can stand in no row."""
    firsts = [shown.first for shown in batch.media if shown.last - shown.first > limit]
    return np.unique(np.searchsorted(batch.starts, np.array(firsts, np.int64), side="right") - 1)


def _before_medium(batch: Batch, first: int, cut: int) -> int:
    """A place to cut at or before ``cut``: the start of the medium that it would have cut."""
    for shown in batch.media:
        if first <= shown.first < cut < shown.last:
            return shown.first
    return cut


def _media_of(batch: Batch, first_K: NDArray[np.int64], last_K: NDArray[np.int64]) -> dict[int, tuple[Media, ...]]:
    """Kept row → the media whose tokens it holds."""
    media: dict[int, tuple[Media, ...]] = {}
    for shown in batch.media:
        last = max(shown.last, shown.first + 1)  # one without tokens of its own belongs to what follows it
        for row in np.flatnonzero((first_K <= shown.first) & (last <= last_K)).tolist():
            media[row] = (*media.get(row, ()), shown.medium)
    return media


def _positions(first_K: NDArray[np.int64], last_K: NDArray[np.int64], total: int) -> slice | NDArray[np.int64]:
    """The tokens of all stretches; a slice when that is everything, which needs no copy."""
    lengths = last_K - first_K
    if int(lengths.sum()) == total:
        return slice(None)
    ends = np.cumsum(lengths)
    return np.arange(int(lengths.sum())) + np.repeat(first_K - (ends - lengths), lengths)
