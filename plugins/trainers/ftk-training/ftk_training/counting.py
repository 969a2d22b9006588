"""What there is in rows and batches: tokens, trained ones, and those that were predicted right.

Tensors: B rows, T tokens, K kept positions (see the collator), V words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from ftk_training.trainer import Batch


def lengths_of(rows: Any) -> list[int]:
    """Tokens of each row, from rows that know it (``lengths_N``) or by looking at each."""
    if hasattr(rows, "lengths_N"):
        return [int(length) for length in rows.lengths_N]
    return [len(row["input_ids"]) for row in rows]


def num_tokens(inputs: Batch) -> torch.Tensor | int:
    """Tokens of a batch without padding, where a mask says what that is."""
    total: torch.Tensor | int = 0
    if "num_tokens" in inputs:  # a batch whose rows are no plain texts says it
        return inputs["num_tokens"].sum()
    for name, ids in inputs.items():
        if name.endswith("input_ids"):  # sounds and pictures have attention masks of other names, which count no tokens
            mask = inputs.get(name.removesuffix("input_ids") + "attention_mask")
            total = total + (ids.numel() if mask is None else mask.sum())
    return total


def num_labels(inputs: Batch) -> torch.Tensor | int:
    """How many tokens of a batch are trained, of all its sequences."""
    total: torch.Tensor | int = 0
    for name, labels in inputs.items():
        if name.endswith("labels") and name != "shift_labels":
            total = total + labels.ne(-100).sum()
    return total


def num_targets(inputs: Batch) -> torch.Tensor:
    """How many tokens of a batch are predicted, as causal models count."""
    labels = inputs["shift_labels"] if "shift_labels" in inputs else inputs["labels"][..., 1:]
    return labels.ne(-100).sum()


def num_trained(inputs: Batch) -> int:
    return int(num_targets(inputs))


def num_right(logits_BTV: torch.Tensor, inputs: Batch) -> torch.Tensor:
    """How many trained tokens are the most likely ones. With kept logits T is K."""
    predicted = logits_BTV.argmax(dim=-1)
    if "shift_labels" in inputs:
        labels = inputs["shift_labels"]
    else:
        labels, predicted = inputs["labels"][..., 1:], predicted[..., :-1]
    return ((predicted == labels) & (labels != -100)).sum()
