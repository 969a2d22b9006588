"""Adafactor without a first moment, its rate given from outside (Shazeer and Stern 2018, algorithms 4 and 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from ftk_training.adamw import decay

SMALLEST = 1e-30
DECAY_POWER = -0.8
LARGEST_STEP = 1.0


def direction(gradient: torch.Tensor, state: dict[str, Any]) -> torch.Tensor:
    """The step for a gradient, of its shape: divided by an estimate of its size, and at most 1 in the mean square.

    Of a matrix (..., M, N) only the means of squares over columns and rows are kept, of anything else all squares.
    """
    state["step"] = state.get("step", 0) + 1
    kept = 1.0 - state["step"] ** DECAY_POWER
    squares = gradient.square() + SMALLEST
    if gradient.ndim >= 2:
        rows = _mean(state, "rows", squares.mean(dim=-1), kept)
        columns = _mean(state, "columns", squares.mean(dim=-2), kept)
        by_row = (rows / rows.mean(dim=-1, keepdim=True)).rsqrt().unsqueeze(-1)
        step = gradient * by_row * columns.unsqueeze(-2).rsqrt()
    else:
        step = gradient * _mean(state, "squares", squares, kept).rsqrt()
    size = step.square().mean().sqrt()
    return step / (size / LARGEST_STEP).clamp(min=1.0)


def _mean(state: dict[str, Any], key: str, new: torch.Tensor, kept: float) -> torch.Tensor:
    if key not in state:
        state[key] = torch.zeros_like(new)
    mean: torch.Tensor = state[key]
    return mean.mul_(kept).add_(new, alpha=1.0 - kept)


@dataclass(frozen=True)
class Adafactor:
    """Adafactor for a weight as it is."""

    def update(
        self, weight: torch.Tensor, gradient: torch.Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        step = direction(gradient.float(), state)
        decay(weight, group)
        weight.add_(step.to(weight.dtype), alpha=-group["lr"])
