"""The optimizer. Tensors: E experts (matrices of one shape, or none), M rows, N columns."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from ftk_training import each_weight
from ftk_training.adamw import AdamW, decay
from ftk_training.each_weight import EachWeight, Part
from ftk_training.matrices import matrices, the_rest

if TYPE_CHECKING:
    from ftk.run import Run
    from torch import nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic iteration, as published: the steepest slope at zero that still keeps singular values near one."""


@dataclass(frozen=True)
class Muon:
    """Momentum of Nesterov's kind, orthogonalised, as large as a step of AdamW (Liu et al. 2025, section 2.2)."""

    momentum: float = 0.95
    num_iterations: int = 5

    def update(
        self, weight: torch.Tensor, gradient: torch.Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(gradient)
        state["momentum"].lerp_(gradient, 1 - self.momentum)
        ahead = gradient.lerp(state["momentum"], self.momentum)
        direction = orthogonalised(ahead.to(precision(ahead.device)), self.num_iterations)
        decay(weight, group)
        scale = 0.2 * math.sqrt(max(weight.shape[-2:]))
        weight.add_(direction.to(weight.dtype), alpha=-group["lr"] * scale)


def precision(device: torch.device) -> torch.dtype:
    """bfloat16 is enough (Jordan et al. 2024); processors multiply float32 some twenty times as fast."""
    return torch.float32 if device.type == "cpu" else torch.bfloat16


def orthogonalised(matrix_EMN: torch.Tensor, num_iterations: int) -> torch.Tensor:
    """About U V^T for each matrix U S V^T, in its type; its singular values lie around one (Jordan et al. 2024).

    The iteration of Newton and Schulz needs products alone, so it is quick where a decomposition is not.
    """
    a, b, c = COEFFICIENTS
    wide = matrix_EMN.shape[-2] <= matrix_EMN.shape[-1]
    x = matrix_EMN if wide else matrix_EMN.mT
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)  # so that no singular value is above one
    product = torch.addmm if x.ndim == 2 else torch.baddbmm
    for _ in range(num_iterations):
        gram = x @ x.mT
        x = product(x, product(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if wide else x.mT


def build(model: nn.Module, run: Run) -> EachWeight:
    """Muon for the matrices between the layers, those of experts included, and AdamW for what else learns."""
    between = matrices(model)
    parts = [Part(Muon(), list(between.values())), Part(AdamW(), the_rest(model, between))]
    return each_weight.make(run, model, parts)
