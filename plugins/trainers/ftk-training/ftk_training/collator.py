"""Rows of tokens → one batch of tensors.

Shapes: B rows, T tokens of the longest row, K positions whose prediction anybody learns from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

IGNORED = -100
"""The label of a token that is not trained (torch's default ``ignore_index``)."""


@dataclass(frozen=True)
class Collator:
    """Pads on the right. Rows have ``input_ids``, ``labels`` (not shifted) and, when packed, ``position_ids``.

    pad_id: fills ``input_ids``. multiple: T is rounded up to a multiple of this, which tensor cores like.
    kept_logits: add ``logits_to_keep`` (K,) and ``shift_labels`` (B, K), with which a model computes its logits only
        where some row trains. The loss is the same; memory and time for the rest of the vocabulary matrix are saved.
    """

    pad_id: int = 0
    multiple: int = 1
    kept_logits: bool = False

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """A batch of (B, T) int64 tensors.

        Rows without ``position_ids`` get an ``attention_mask``. As soon as one row is packed there is none: only then
        do transformers' models find the boundaries of documents in ``position_ids`` and keep them apart; with a mask
        of ones the documents leak into each other. Padding becomes documents of its own, which nobody sees.
        """
        lengths = [len(row["input_ids"]) for row in rows]
        width = -(-max(lengths) // self.multiple) * self.multiple
        input_ids_BT = np.full((len(rows), width), self.pad_id, dtype=np.int64)
        labels_BT = np.full((len(rows), width), IGNORED, dtype=np.int64)
        for number, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            input_ids_BT[number, :length] = row["input_ids"]
            labels_BT[number, :length] = row["labels"]
        batch = {"input_ids": input_ids_BT, "labels": labels_BT}
        if any("position_ids" in row for row in rows):
            batch["position_ids"] = _positions(rows, lengths, width)
            labels_BT[batch["position_ids"] == 0] = IGNORED  # what precedes a document does not predict it
        else:
            batch["attention_mask"] = (np.arange(width) < np.array(lengths)[:, None]).astype(np.int64)
        if self.kept_logits:
            batch |= _kept(labels_BT)
        return {name: torch.from_numpy(array) for name, array in batch.items()}


def _positions(rows: Sequence[Mapping[str, Any]], lengths: Sequence[int], width: int) -> np.ndarray:
    position_ids_BT = np.zeros((len(rows), width), dtype=np.int64)
    for number, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        position_ids_BT[number, :length] = row["position_ids"] if "position_ids" in row else np.arange(length)
        position_ids_BT[number, length:] = np.arange(width - length)
    return position_ids_BT


def _kept(labels_BT: np.ndarray) -> dict[str, np.ndarray]:
    """Position t predicts token t + 1, so a position is kept when the label after it is trained in any row."""
    following_BT = labels_BT[:, 1:]
    kept_K = np.flatnonzero((following_BT != IGNORED).any(axis=0))
    if not len(kept_K):
        kept_K = np.zeros(1, dtype=np.int64)
    return {"logits_to_keep": kept_K.astype(np.int64), "shift_labels": np.ascontiguousarray(following_BT[:, kept_K])}
