"""Rewards of conversations, by a model with a value head. Shapes: B conversations, T tokens of the longest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from ftk_training.value_head import attach, beside, head_of, put, values

if TYPE_CHECKING:
    from ftk.run import Run


def give_head(model: Any, run: Run) -> None:
    """Give the model the value head that lies beside its adapter or its files, unless it has one or there is none."""
    if head_of(model) is None and (state := beside(run)) is not None:
        put(attach(model), state, str(run.model_path))


def padded(rows: Sequence[Sequence[int]], pad_id: int) -> dict[str, torch.Tensor]:
    """``input_ids`` and ``attention_mask`` (B, T), padded on the right."""
    width = max(map(len, rows))
    ids_BT = torch.tensor([[*row, *[pad_id] * (width - len(row))] for row in rows])
    lengths_B = torch.tensor([len(row) for row in rows])
    return {"input_ids": ids_BT, "attention_mask": (torch.arange(width) < lengths_B[:, None]).long()}


def rewards(model: Any, inputs: dict[str, torch.Tensor]) -> list[float]:
    """The value at the last token of each row that is no padding. Raises ModelError for a model without a head."""
    ends_B = inputs["attention_mask"].sum(dim=1) - 1
    values_BT = values(model, inputs)
    rewards_B: list[float] = values_BT.gather(1, ends_B[:, None].to(values_BT.device))[:, 0].tolist()
    return rewards_B
