"""The formulas of PPO for language models, as functions of tensors and small values.

Shapes: A tokens of one answer, N tokens of all answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

EPSILON = 1e-8
MOST_ERROR = 0.2
"""The controller sees errors of at most this share of the target."""


def token_rewards(log_probs_A: torch.Tensor, reference_A: torch.Tensor, score: float, cost: float) -> torch.Tensor:
    """(A,): -cost * (log p - log p_ref) for each token, and the score with the last (arXiv:1909.08593, eq. 2)."""
    made_A = -cost * (log_probs_A - reference_A)
    if len(made_A):
        made_A[-1] += score
    return made_A


def estimated(
    rewards_A: torch.Tensor, values_A: torch.Tensor, gamma: float, lam: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """(advantages (A,), returns (A,)) by generalized advantage estimation (arXiv:1506.02438, eq. 16).

    values_A: the critic's before each token; after the last token there is nothing to come.
    """
    advantages_A = torch.zeros_like(rewards_A)
    later, following = 0.0, 0.0
    for place in reversed(range(len(rewards_A))):
        delta = float(rewards_A[place]) + gamma * following - float(values_A[place])
        later = delta + gamma * lam * later
        advantages_A[place], following = later, float(values_A[place])
    return advantages_A, advantages_A + values_A


@dataclass(frozen=True)
class Moments:
    """Number, sum, and sum of squares of some numbers."""

    count: float
    total: float
    squares: float

    @classmethod
    def of(cls, parts: Sequence[torch.Tensor]) -> Moments:
        numbers = torch.cat([torch.zeros(0), *parts]).double()
        return cls(float(len(numbers)), float(numbers.sum()), float(numbers.square().sum()))

    @property
    def mean(self) -> float:
        return self.total / max(self.count, 1.0)

    @property
    def variance(self) -> float:
        """That of a sample, with one less than there are; 0 for a single number."""
        spread = self.squares - self.count * self.mean**2
        return max(spread, 0.0) / (self.count - 1) if self.count > 1 else 0.0

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.count + other.count, self.total + other.total, self.squares + other.squares)


def whitened(parts: Sequence[torch.Tensor], moments: Moments, *, centred: bool = True) -> list[torch.Tensor]:
    """The numbers with variance 1, and mean 0 unless not ``centred``, which leaves the mean as it is."""
    scale = (moments.variance + EPSILON) ** -0.5
    kept = 0.0 if centred else moments.mean
    return [(one - moments.mean) * scale + kept for one in parts]


@dataclass
class Controller:
    """What the divergence from the reference costs, adapted so that answers keep to ``target`` (arXiv:1909.08593, 2.2).

    A target of None leaves the cost as it is.
    """

    cost: float
    target: float | None
    horizon: int

    def update(self, divergence: float, num_answers: int) -> None:
        """divergence: the mean over answers of the sum over their tokens."""
        if self.target is not None:
            error = min(MOST_ERROR, max(-MOST_ERROR, divergence / self.target - 1))
            self.cost *= 1 + error * num_answers / self.horizon


def policy_losses(ratios_N: torch.Tensor, advantages_N: torch.Tensor, cliprange: float) -> torch.Tensor:
    """max(-r A, -clip(r) A), arXiv:1707.06347, eq. 7."""
    return torch.maximum(-ratios_N * advantages_N, -ratios_N.clamp(1 - cliprange, 1 + cliprange) * advantages_N)


def value_losses(
    values_N: torch.Tensor, before_N: torch.Tensor, returns_N: torch.Tensor, cliprange: float
) -> torch.Tensor:
    """Half the larger of the squared errors of the value and of the value kept within ``cliprange`` of what it was."""
    kept_N = torch.minimum(torch.maximum(values_N, before_N - cliprange), before_N + cliprange)
    return 0.5 * torch.maximum((values_N - returns_N).square(), (kept_N - returns_N).square())
