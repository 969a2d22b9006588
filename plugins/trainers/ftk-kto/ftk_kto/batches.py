"""Batches of feedback: the rows, and beside them their prompts with the answers of others.

A row of a batch is one answer with its prompt, or several that were packed. Shapes: R answers, B rows and T tokens of a
batch (B is 1 where rows are joined, else R or, packed, fewer).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ftk_training.collator import Collator, joined
from ftk_training.pairs import Text
from ftk_training.reference_cache import Known, key_of
from numpy.typing import NDArray

KL = "kl_"
OWN = ("desirable", "kl", "ftx_scale", "ref_sums")
"""What is said of the answers of a batch, or of all answers of a step; no model is given it."""
Row = Mapping[str, Any]


def answers_of(rows: Sequence[Row]) -> list[list[Row]]:
    """The answers of each row: one, or those of a pack."""
    return [list(row["feedback"]) if "feedback" in row else [row] for row in rows]


@dataclass(frozen=True)
class Feedback:
    """Two batches in one: that of the rows, and as ``kl_…`` that of the mismatched ones.

    collator: pads rows, or joins them to one (``flat``), and reads what they show.
    known: what the reference has said of both, where that was computed once.
    """

    collator: Collator
    known: Known | None = None

    def __call__(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """``desirable`` (R,), and twice what the collator makes, with ``texts`` (B, T): which answer each token is of.

        Of what is known ``ref_sums`` and ``kl_ref_sums`` (R,) are there, too.
        """
        packs = answers_of(rows)
        answers = [one for pack in packs for one in pack]
        made = {
            "desirable": torch.tensor([bool(one["desirable"]) for one in answers]),
            "num_tokens": torch.tensor([sum(len(one["input_ids"]) for one in answers)]),
        }
        for prefix in ("", KL):
            batch = self._batch([[_part(one, prefix) for one in pack] for pack in packs])
            made |= {f"{prefix}{key}": one for key, one in batch.items()}
        if self.known is not None:
            made["ref_sums"], made[f"{KL}ref_sums"] = self.known.find(keys_of(rows)).chunk(2)
        return made

    def _batch(self, packs: Sequence[Sequence[Row]]) -> dict[str, torch.Tensor]:
        batch = self.collator([joined(pack) if len(pack) > 1 else pack[0] for pack in packs])
        texts_BT = torch.zeros_like(batch["input_ids"])  # padding trains nothing, so it may be of any
        number = 0
        for row, answers in enumerate([[one for pack in packs for one in pack]] if self.collator.flat else packs):
            lengths = torch.tensor([len(one["input_ids"]) for one in answers])
            numbers = torch.arange(number, number + len(answers))
            texts_BT[row, : int(lengths.sum())] = numbers.repeat_interleave(lengths)
            number += len(answers)
        return {**batch, "texts": texts_BT}


def _part(answer: Row, prefix: str) -> dict[str, Any]:
    """The answer's own row, or with the prefix ``kl_`` the mismatched one."""
    if prefix:
        return {key.removeprefix(prefix): one for key, one in answer.items() if key.startswith(prefix)}
    return {key: one for key, one in answer.items() if not key.startswith(KL) and key != "desirable"}


def keys_of(rows: Sequence[Row]) -> NDArray[np.int64]:
    """(2 R,): what the reference's sums are kept under, those of the rows and then those of the mismatched ones."""
    answers = [one for pack in answers_of(rows) for one in pack]
    parts = [_part(one, prefix) for prefix in ("", KL) for one in answers]
    texts = [Text(one["input_ids"], one["labels"], one.get("loss_weights"), one.get("media", ())) for one in parts]
    return np.array([key_of(text) for text in texts], np.int64)


def without_mismatched(batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The batch of the answers themselves, with what is said of them."""
    return {key: one for key, one in batch.items() if not key.startswith(KL)}


def mismatched_part(batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The batch of the same prompts with the answers of others."""
    return {key.removeprefix(KL): one for key, one in batch.items() if key.startswith(KL)}


def num_rows(batch: Mapping[str, torch.Tensor]) -> int:
    """R."""
    return len(batch["desirable"])
