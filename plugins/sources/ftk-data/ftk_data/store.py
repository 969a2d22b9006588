"""Tokenised rows in flat arrays, whatever their number: five bytes a token and sixteen a row.

T: all tokens, N: rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ftk_data.fitting import Fitted

IGNORED = -100
"""The label that the loss leaves out."""


@dataclass(frozen=True)
class Store:
    """Rows of tokens, one after the other.

    starts: where each row starts, with the end as the last (N + 1 numbers).
    examples_N: the number of the example that a row came from; rows of one example stay on one side of a split.
    """

    ids_T: NDArray[np.int32]
    trained_T: NDArray[np.bool_]
    starts: NDArray[np.int64]
    examples_N: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths_N(self) -> NDArray[np.int64]:
        return np.diff(self.starts)

    def row(self, index: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The ids and labels of a row, int64 each."""
        span = slice(self.starts[index], self.starts[index + 1])
        ids_T = self.ids_T[span].astype(np.int64)
        return ids_T, np.where(self.trained_T[span], ids_T, IGNORED)


def collected(batches: Iterable[tuple[NDArray[np.int64], Fitted]]) -> Store:
    """The store of fitted batches, each with the example numbers of its rows."""
    ids: list[NDArray[np.int32]] = [np.empty(0, np.int32)]
    trained: list[NDArray[np.bool_]] = [np.empty(0, bool)]
    lengths: list[NDArray[np.int64]] = [np.zeros(1, np.int64)]
    examples: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    for numbers_R, fitted in batches:
        ids.append(fitted.ids_T)
        trained.append(fitted.trained_T)
        lengths.append(fitted.lengths_K)
        examples.append(numbers_R[fitted.rows_K])
    return Store(
        np.concatenate(ids), np.concatenate(trained), np.cumsum(np.concatenate(lengths)), np.concatenate(examples)
    )


def joined(stores: Sequence[Store]) -> Store:
    """Several stores as one, their examples renumbered so that they stay apart."""
    if len(stores) == 1:
        return stores[0]
    lengths = [np.zeros(1, np.int64), *(store.lengths_N for store in stores)]
    examples = [np.empty(0, np.int64)]
    offset = 0
    for store in stores:
        examples.append(store.examples_N + offset)
        offset += int(store.examples_N.max(initial=-1)) + 1
    return Store(
        np.concatenate([np.empty(0, np.int32), *(store.ids_T for store in stores)]),
        np.concatenate([np.empty(0, bool), *(store.trained_T for store in stores)]),
        np.cumsum(np.concatenate(lengths)),
        np.concatenate(examples),
    )
