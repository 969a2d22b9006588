"""Tokenised rows in the order in which they are trained: what behaves like a list of dicts and is none.

Nothing is kept but flat arrays; a row is put together when it is asked for. N: rows, T: tokens of a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from ftk_data.packing import pack
from ftk_data.store import IGNORED, Store, TokenRow

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ftk_data.packing import Packs

RowDict = dict[str, Any]


class TokenRows(Sequence[RowDict]):
    """Single rows of a store. The base of what groups or cuts them.

    Keys of a row: ``input_ids`` and ``labels`` (T,) int64; ``position_ids`` when several documents share it;
    ``loss_weights`` (T,) float32 when some token does not weigh 1; ``media`` when it shows something.
    packed: whether several documents may share a row.
    """

    packed = False

    def __init__(self, store: Store, order: NDArray[np.int64]) -> None:
        self.store, self.order = store, order

    def __len__(self) -> int:
        return len(self.order)

    @property
    def members(self) -> NDArray[np.int64]:
        """The numbers in the store of all rows that are in these."""
        return self.order

    @property
    def lengths_N(self) -> NDArray[np.int64]:
        """The number of tokens of each row."""
        return self.store.lengths_N[self.order]

    @overload
    def __getitem__(self, index: int) -> RowDict: ...
    @overload
    def __getitem__(self, index: slice) -> list[RowDict]: ...
    def __getitem__(self, index: int | slice) -> RowDict | list[RowDict]:
        if isinstance(index, slice):
            return [self.row(one) for one in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        return self.row(int(index) % len(self))

    def row(self, index: int) -> RowDict:
        """One row, from 0."""
        return as_dict(self.store.row(self.order[index]))


class PackedRows(TokenRows):
    """Several rows in one, isolated from each other: positions restart at 0 with each."""

    packed = True

    def __init__(self, store: Store, order: NDArray[np.int64], packs: Packs) -> None:
        super().__init__(store, order)
        self.packs = packs

    def __len__(self) -> int:
        return len(self.packs)

    @property
    def lengths_N(self) -> NDArray[np.int64]:
        lengths = self.store.lengths_N[self.order[self.packs.rows_N]]
        return np.add.reduceat(lengths, self.packs.starts[:-1]) if len(self) else lengths

    def row(self, index: int) -> RowDict:
        members = self.packs.rows_N[self.packs.starts[index] : self.packs.starts[index + 1]]
        return together([self.store.row(self.order[member]) for member in members])


class BlockRows(TokenRows):
    """One stream of all rows, cut into blocks of ``size`` tokens; the last one is shorter."""

    def __init__(self, store: Store, order: NDArray[np.int64], size: int) -> None:
        super().__init__(store, order)
        self.size = size
        self.edges = np.concatenate((np.zeros(1, np.int64), np.cumsum(store.lengths_N[order])))

    def __len__(self) -> int:
        return (int(self.edges[-1]) + self.size - 1) // self.size

    @property
    def lengths_N(self) -> NDArray[np.int64]:
        lengths = np.full(len(self), self.size, np.int64)
        if len(lengths):
            lengths[-1] = self.edges[-1] - self.size * (len(self) - 1)
        return lengths

    def row(self, index: int) -> RowDict:
        first, last = index * self.size, min((index + 1) * self.size, int(self.edges[-1]))
        one = int(np.searchsorted(self.edges, first, side="right")) - 1
        parts = []
        while first < last:
            row = self.store.row(self.order[one])
            span = slice(first - int(self.edges[one]), min(last, int(self.edges[one + 1])) - int(self.edges[one]))
            parts.append((row.ids_T[span], row.labels_T[span]))
            one += 1
            first = int(self.edges[one])
        return {
            "input_ids": np.concatenate([ids_T for ids_T, _ in parts]),
            "labels": np.concatenate([labels_T for _, labels_T in parts]),
        }


def as_dict(row: TokenRow, prefix: str = "") -> RowDict:
    """A row as trainers take it; ``prefix`` goes before each key."""
    made: RowDict = {f"{prefix}input_ids": row.ids_T, f"{prefix}labels": row.labels_T}
    if row.weights_T is not None and (row.weights_T != 1).any():
        made[f"{prefix}loss_weights"] = row.weights_T
    if row.media:
        made[f"{prefix}media"] = row.media
    return made


def together(rows: Sequence[TokenRow]) -> RowDict:
    """Several documents as one row."""
    for row in rows:
        row.labels_T[0] = IGNORED  # what comes before it is another document
    made: RowDict = {
        "input_ids": np.concatenate([row.ids_T for row in rows]),
        "labels": np.concatenate([row.labels_T for row in rows]),
        "position_ids": np.concatenate([np.arange(len(row.ids_T)) for row in rows]),
    }
    if any(row.weights_T is not None and (row.weights_T != 1).any() for row in rows):
        made["loss_weights"] = np.concatenate(list(_weights(rows)))
    if media := tuple(one for row in rows for one in row.media):
        made["media"] = media
    return made


def _weights(rows: Sequence[TokenRow]) -> Iterable[NDArray[np.float32]]:
    for row in rows:
        yield np.ones(len(row.ids_T), np.float32) if row.weights_T is None else row.weights_T


class PairRows(TokenRows):
    """Two rows of one example in one: ``chosen_input_ids``, ``chosen_labels``, ``rejected_input_ids`` and so on.

    order: the store's number of each chosen row; the rejected one stands after it.
    """

    @property
    def members(self) -> NDArray[np.int64]:
        return np.concatenate((self.order, self.order + 1))

    @property
    def lengths_N(self) -> NDArray[np.int64]:
        """The longer of the two."""
        return np.maximum(self.store.lengths_N[self.order], self.store.lengths_N[self.order + 1])

    def row(self, index: int) -> RowDict:
        chosen = int(self.order[index])
        return as_dict(self.store.row(chosen), "chosen_") | as_dict(self.store.row(chosen + 1), "rejected_")


class PackedPairRows(PairRows):
    """Several pairs in one row, whole: ``pairs``, a list of such rows as :class:`PairRows` has.

    lengths_N: tokens of the longer side of each pair, so all chosen ones of a pack fit into one row of a batch, and all
    rejected ones into another.
    """

    packed = True

    def __init__(self, store: Store, order: NDArray[np.int64], packs: Packs) -> None:
        super().__init__(store, order)
        self.packs = packs

    def __len__(self) -> int:
        return len(self.packs)

    @property
    def lengths_N(self) -> NDArray[np.int64]:
        lengths = super().lengths_N[self.packs.rows_N]
        return np.add.reduceat(lengths, self.packs.starts[:-1]) if len(self) else lengths

    def row(self, index: int) -> RowDict:
        members = self.packs.rows_N[self.packs.starts[index] : self.packs.starts[index + 1]]
        return {"pairs": [super(PackedPairRows, self).row(int(member)) for member in members]}


class FeedbackRows(TokenRows):
    """A row with ``desirable`` (bool), and the same prompt with the answer of another example: ``kl_input_ids`` …

    The other answer is that of the row before, as in KTO (Ethayarajh et al. 2024, arXiv:2402.01306, section 4.2), where
    such mismatched pairs estimate how far the policy has moved. It is cut where the row would be longer than ``size``.
    """

    def __init__(self, store: Store, order: NDArray[np.int64], size: int) -> None:
        super().__init__(store, order)
        self.size = size

    def row(self, index: int) -> RowDict:
        number = int(self.order[index])
        row, other = self.store.row(number), self.store.row(int(self.order[index - 1]))
        first, theirs = answer_starts(row), answer_starts(other)
        ids_T = np.concatenate((row.ids_T[:first], other.ids_T[theirs:]))[: self.size]
        labels_T = np.concatenate((np.full(first, IGNORED), other.labels_T[theirs:]))[: self.size]
        return {
            **as_dict(row),
            "desirable": bool(self.store.roles_N[number]),
            **as_dict(TokenRow(ids_T, labels_T, None, row.media), "kl_"),
        }

    @property
    def longer_N(self) -> NDArray[np.int64]:
        """Tokens of each row, or of its prompt with the other answer where that is more. Looks at every row."""
        own_N = self.store.lengths_N[self.order]
        firsts_N = np.array([answer_starts(self.store.row(int(number))) for number in self.order], np.int64)
        others_N = firsts_N + np.roll(own_N - firsts_N, 1)
        return np.maximum(own_N, others_N.clip(max=self.size))


class PackedFeedbackRows(FeedbackRows):
    """Several rows of feedback in one, whole: ``feedback``, a list of such rows as :class:`FeedbackRows` has.

    A row has the same other answer as unpacked. All rows of a pack fit into one row of a batch, and so do their prompts
    with the answers of others.
    """

    packed = True

    def __init__(self, store: Store, order: NDArray[np.int64], size: int) -> None:
        super().__init__(store, order, size)
        self.longest_N = self.longer_N
        self.packs = pack(self.longest_N, size)

    def __len__(self) -> int:
        return len(self.packs)

    @property
    def lengths_N(self) -> NDArray[np.int64]:
        lengths = self.longest_N[self.packs.rows_N]
        return np.add.reduceat(lengths, self.packs.starts[:-1]) if len(self) else lengths

    def row(self, index: int) -> RowDict:
        members = self.packs.rows_N[self.packs.starts[index] : self.packs.starts[index + 1]]
        return {"feedback": [super(PackedFeedbackRows, self).row(int(member)) for member in members]}


class PromptRows(TokenRows):
    """``input_ids`` is a prompt up to its answer; ``labels`` is the reference answer, empty without one.

    firsts: (name of a data set, number of its first example), in the order of the store.
    """

    def __init__(self, store: Store, order: NDArray[np.int64], firsts: Sequence[tuple[str, int]] = ()) -> None:
        super().__init__(store, order)
        self.firsts = tuple(firsts)

    @property
    def lengths_N(self) -> NDArray[np.int64]:
        return np.array([answer_starts(self.store.row(int(number))) for number in self.order], np.int64)

    def row(self, index: int) -> RowDict:
        row = self.store.row(int(self.order[index]))
        first = answer_starts(row)
        answer_T = row.labels_T[first:]
        made: RowDict = {"input_ids": row.ids_T[:first], "labels": answer_T[answer_T != IGNORED]}
        return made | ({"media": row.media} if row.media else {})


def answer_starts(row: TokenRow) -> int:
    """Where the first trained token stands; the length of a row without one."""
    trained = np.flatnonzero(row.labels_T != IGNORED)
    return int(trained[0]) if len(trained) else len(row.ids_T)
