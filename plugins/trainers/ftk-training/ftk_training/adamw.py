"""AdamW as a rule (Loshchilov and Hutter 2019, algorithm 2), and Adam's direction for rules that build on it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch


class Moments(Protocol):
    """How the two moments are kept between steps."""

    def read(self, state: dict[str, Any], like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Both moments, zeros at first, of ``like``'s shape; they may be changed in place."""

    def write(self, state: dict[str, Any], first: torch.Tensor, second: torch.Tensor) -> None:
        """Keep them."""


@dataclass(frozen=True)
class Plain:
    """As they are, in the type of the gradient that they are made of."""

    def read(self, state: dict[str, Any], like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if "exp_avg" not in state:
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(like), torch.zeros_like(like)
        return state["exp_avg"], state["exp_avg_sq"]

    def write(self, state: dict[str, Any], first: torch.Tensor, second: torch.Tensor) -> None:
        """They were changed in place."""


@dataclass(frozen=True)
class AdamW:
    """Decoupled weight decay, then Adam."""

    moments: Moments = field(default_factory=Plain)

    def update(
        self, weight: torch.Tensor, gradient: torch.Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        decay(weight, group)
        first, denominator, correction = adam(gradient, state, group, self.moments)
        weight.addcdiv_(first, denominator, value=-group["lr"] / correction)


def decay(weight: torch.Tensor, group: dict[str, Any]) -> None:
    """Shrink the weight towards zero, independent of its gradient."""
    if group["weight_decay"]:
        weight.mul_(1 - group["lr"] * group["weight_decay"])


def adam(
    gradient: torch.Tensor, state: dict[str, Any], group: dict[str, Any], moments: Moments
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """One step of Adam's moments (Kingma and Ba 2015, algorithm 1).

    Returns (m, sqrt(v / (1 - beta2^t)) + eps, 1 - beta1^t); Adam's direction is the first divided by both others.
    """
    beta1, beta2 = group["betas"]
    state["step"] = state.get("step", 0) + 1
    first, second = moments.read(state, gradient)
    gradient = gradient.to(first.dtype)
    first.lerp_(gradient, 1 - beta1)
    second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    denominator = (second.sqrt() / math.sqrt(1 - beta2 ** state["step"])).add_(group["eps"])
    moments.write(state, first, second)
    return first, denominator, 1 - beta1 ** state["step"]
