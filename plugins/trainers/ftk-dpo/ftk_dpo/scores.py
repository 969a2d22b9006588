"""What a loss of preference gets and gives. P: pairs of a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch


@dataclass(frozen=True)
class PairScores:
    """log π(y|x) of the chosen and the rejected answer of each pair: sums over tokens, or means where the loss is
    declared ``averaged``. The first two have a gradient.

    ref_chosen_P, ref_rejected_P: the reference's; zeros for a loss without one.
    drift: (2,), by how much the policy's sums exceed the reference's, chosen and rejected, in the mean over all pairs
    of the optimizer step; without a gradient. Zeros unless the loss is declared with ``drift``.
    """

    chosen_P: torch.Tensor
    rejected_P: torch.Tensor
    ref_chosen_P: torch.Tensor
    ref_rejected_P: torch.Tensor
    drift: torch.Tensor

    @property
    def chosen_ratios_P(self) -> torch.Tensor:
        """log π(y_w|x) / π_ref(y_w|x)."""
        return self.chosen_P - self.ref_chosen_P

    @property
    def rejected_ratios_P(self) -> torch.Tensor:
        """log π(y_l|x) / π_ref(y_l|x)."""
        return self.rejected_P - self.ref_rejected_P

    @property
    def margins_P(self) -> torch.Tensor:
        """By how much the policy prefers the chosen answer more than the reference does."""
        return self.chosen_ratios_P - self.rejected_ratios_P


@dataclass(frozen=True)
class PairLoss:
    """losses_P: one for each pair. Rewards are what the policy implicitly gives each answer, for the log.

    metrics: further values of each pair, (P,), whose means are logged.
    """

    losses_P: torch.Tensor
    chosen_rewards_P: torch.Tensor
    rejected_rewards_P: torch.Tensor
    metrics: Mapping[str, torch.Tensor] = field(default_factory=dict)


Loss = Callable[[PairScores], PairLoss]
