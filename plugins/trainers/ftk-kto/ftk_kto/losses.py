"""The loss of KTO (Ethayarajh et al. 2024, arXiv:2402.01306, eq. 7 and 8). Shapes: R rows.

    r(x, y) = log π(y|x) - log π_ref(y|x)
    v(x, y) = λ_D σ(β (r - z0))  for a liked y,  λ_U σ(β (z0 - r))  for a disliked one
    loss    = λ_y - v(x, y)

z0 ≥ 0 is the estimate of KL(π || π_ref), through which no gradient goes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Weighting:
    """β, λ_D and λ_U of the paper."""

    beta: float
    chosen: float = 1.0
    rejected: float = 1.0


def kto_losses(ratios_R: torch.Tensor, desirable_R: torch.Tensor, kl: torch.Tensor, how: Weighting) -> torch.Tensor:
    """(R,): the loss of each answer. ratios_R: r; desirable_R: whether it was liked; kl: z0, a number."""
    gains_R = torch.where(desirable_R, ratios_R - kl, kl - ratios_R)
    weights_R = torch.where(desirable_R, how.chosen, how.rejected)
    return weights_R * torch.sigmoid(-how.beta * gains_R)  # 1 - σ(x) is σ(-x), exactly where x is large


def drift(mismatched: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """z0: the mean of r over mismatched pairs (section 4.2), at least 0. mismatched: the sum of r over ``count``."""
    return (mismatched / count.clamp(min=1)).clamp(min=0)
