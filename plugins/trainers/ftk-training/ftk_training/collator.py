"""Rows of tokens, and of media, → one batch of tensors.

Shapes: B rows, T tokens of the longest row, K positions whose prediction anybody learns from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ftk import DataError

if TYPE_CHECKING:
    from ftk.types import MediaEncoder

IGNORED = -100
"""The label of a token that is not trained (torch's default ``ignore_index``)."""


@dataclass(frozen=True)
class Collator:
    """Pads on the right. Rows have ``input_ids``, ``labels`` (not shifted) and, when packed, ``position_ids``; where
    they have them, ``loss_weights`` (a number for each token) and ``media`` (what the row shows, in order).

    pad_id: fills ``input_ids``. multiple: T is rounded up to a multiple of this, which tensor cores like.
    kept_logits: add ``logits_to_keep`` (K,) and ``shift_labels`` (B, K), with which a model computes its logits only
        where some row trains. The loss is the same; memory and time for the rest of the vocabulary matrix are saved.
    media: reads the media of a batch; what it returns goes over the rest of the batch.
    flat: one row of all tokens instead of padding (B is 1), in which the rows are documents apart, as in packed ones.
        Flash attention keeps documents apart in a batch of one row only.
    blanks: kind of medium → ``input_ids`` and ``media`` that nobody learns from, put behind the first row of a batch
        that shows none of the kind. Processes that train together must all go through a tower, or they wait for each
        other for ever.
    """

    pad_id: int = 0
    multiple: int = 1
    kept_logits: bool = False
    media: MediaEncoder | None = None
    flat: bool = False
    blanks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """A batch of (B, T) int64 tensors, and what ``media`` adds.

        Rows without ``position_ids`` get an ``attention_mask``. As soon as one row is packed there is none: only then
        do transformers' models find the boundaries of documents in ``position_ids`` and keep them apart; with a mask
        of ones the documents leak into each other. Padding becomes documents of its own, which nobody sees.
        ``loss_weights`` (B, T), float32, is there when a row has some; with ``kept_logits`` it is (B, K).
        """
        if self.flat:
            rows = [joined(rows)]
        lengths = [len(row["input_ids"]) for row in rows]
        if self.blanks:
            shown = {one.kind for row in rows for one in row.get("media", ())}
            for blank in (blank for kind, blank in self.blanks.items() if kind not in shown):
                rows = [_behind(rows[0], blank), *rows[1:]]
        width = -(-max(len(row["input_ids"]) for row in rows) // self.multiple) * self.multiple
        batch = {
            "input_ids": torch.from_numpy(_padded(rows, "input_ids", width, self.pad_id)),
            "labels": torch.from_numpy(_padded(rows, "labels", width, IGNORED)),
        }
        if any("position_ids" in row for row in rows):
            batch["position_ids"] = torch.from_numpy(_positions(rows, lengths, width))
            # what precedes a document does not predict it
            batch["labels"][batch["position_ids"] == 0] = IGNORED
        else:
            batch["attention_mask"] = (torch.arange(width) < torch.tensor(lengths)[:, None]).long()
        if any("loss_weights" in row for row in rows):
            batch["loss_weights"] = torch.from_numpy(_weights(rows, lengths, width))
        if self.media is not None:
            batch |= self.media.encode(batch, [tuple(row.get("media", ())) for row in rows])
        elif any(row.get("media") for row in rows):
            raise DataError(
                "media: rows show images, videos or sounds, and no installed plugin reads them for this model"
            )
        return batch | _kept(batch) if self.kept_logits else batch


def _padded(rows: Sequence[Mapping[str, Any]], key: str, width: int, filling: int) -> np.ndarray:
    padded_BT = np.full((len(rows), width), filling, dtype=np.int64)
    for number, row in enumerate(rows):
        padded_BT[number, : len(row[key])] = row[key]
    return padded_BT


def joined(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Rows one after the other, as documents of one, each with its positions from 0."""
    lengths = [len(row["input_ids"]) for row in rows]
    made = {key: np.concatenate([row[key] for row in rows]) for key in ("input_ids", "labels")}
    made["position_ids"] = np.concatenate(
        [row.get("position_ids", np.arange(length)) for row, length in zip(rows, lengths, strict=True)]
    )
    if any("loss_weights" in row for row in rows):
        made["loss_weights"] = _weights(rows, lengths, max(lengths))[np.arange(max(lengths)) < np.c_[lengths]]
    if media := tuple(one for row in rows for one in row.get("media", ())):
        made["media"] = media
    return made


def _behind(row: Mapping[str, Any], blank: Mapping[str, Any]) -> dict[str, Any]:
    """A row with the tokens of ``blank`` where padding would stand; no token of the row sees what comes after it."""
    ids_T = np.concatenate([row["input_ids"], blank["input_ids"]])
    labels_T = np.concatenate([row["labels"], np.full(len(blank["input_ids"]), IGNORED)])
    return {**row, "input_ids": ids_T, "labels": labels_T, "media": (*row.get("media", ()), *blank["media"])}


def _weights(rows: Sequence[Mapping[str, Any]], lengths: Sequence[int], width: int) -> np.ndarray:
    weights_BT = np.ones((len(rows), width), dtype=np.float32)
    for number, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        weights_BT[number, :length] = row.get("loss_weights", 1.0)
    return weights_BT


def _positions(rows: Sequence[Mapping[str, Any]], lengths: Sequence[int], width: int) -> np.ndarray:
    position_ids_BT = np.zeros((len(rows), width), dtype=np.int64)
    for number, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        position_ids_BT[number, :length] = row["position_ids"] if "position_ids" in row else np.arange(length)
        position_ids_BT[number, length:] = np.arange(width - length)
    return position_ids_BT


def _kept(batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Position t predicts token t + 1, so a position is kept when the label after it is trained in any row."""
    following_BT = batch["labels"][:, 1:]
    kept_K = (following_BT != IGNORED).any(dim=0).nonzero()[:, 0]
    if not len(kept_K):
        kept_K = torch.zeros(1, dtype=torch.int64)
    kept = {"logits_to_keep": kept_K, "shift_labels": following_BT[:, kept_K]}
    if "loss_weights" in batch:
        kept["loss_weights"] = batch["loss_weights"][:, 1:][:, kept_K]
    return kept
