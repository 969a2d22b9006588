"""Batches of feedback: the rows, and beside them their prompts with the answers of others.

Shapes: R rows, B rows and T tokens of a batch (B is 1 where rows are joined, else R).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from ftk_training.collator import Collator

KL = "kl_"
OWN = ("desirable", "kl", "ftx_scale")
"""What is said of the rows of a batch, or of all rows of a step; no model is given it."""


class Feedback:
    """Two batches in one: that of the rows, and as ``kl_…`` that of the mismatched ones.

    collator: pads rows, or joins them to one (``flat``), and reads what they show.
    """

    def __init__(self, collator: Collator) -> None:
        self.collator = collator

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """``desirable`` (R,), and twice what the collator makes, with ``texts`` (B, T): which row each token is of."""
        own = [{key: one for key, one in row.items() if not key.startswith(KL) and key != "desirable"} for row in rows]
        others = [{key.removeprefix(KL): one for key, one in row.items() if key.startswith(KL)} for row in rows]
        made = {"desirable": torch.tensor([bool(row["desirable"]) for row in rows])}
        return made | self._batch(own) | {f"{KL}{key}": one for key, one in self._batch(others).items()}

    def _batch(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        batch = self.collator(rows)
        texts_BT = torch.zeros_like(batch["input_ids"])  # padding trains nothing, so it may be of any
        if self.collator.flat:
            lengths = torch.tensor([len(row["input_ids"]) for row in rows])
            texts_BT[0, : int(lengths.sum())] = torch.arange(len(rows)).repeat_interleave(lengths)
        else:
            texts_BT += torch.arange(len(rows))[:, None]
        return {**batch, "texts": texts_BT}


def without_mismatched(batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The batch of the rows themselves, with what is said of them."""
    return {key: one for key, one in batch.items() if not key.startswith(KL)}


def mismatched_part(batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The batch of the same prompts with the answers of others."""
    return {key.removeprefix(KL): one for key, one in batch.items() if key.startswith(KL)}


def num_rows(batch: Mapping[str, torch.Tensor]) -> int:
    """R."""
    return len(batch["desirable"])
