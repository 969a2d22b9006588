"""Losses of preference that measure the policy against a reference. P: pairs of a batch.

β is ``pref_beta``. Rewards are β log π(y|x) / π_ref(y|x) (DPO, arXiv:2305.18290, section 5).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from ftk import ConfigError
from ftk_training.preference_options import PreferenceOptions
from torch.nn.functional import logsigmoid, relu

from ftk_dpo import DpoOptions
from ftk_dpo.scores import Loss, PairLoss, PairScores

if TYPE_CHECKING:
    from ftk.run import Run


def sigmoid(run: Run) -> Loss:
    """DPO, eq. 7: -log σ(β margin). With label smoothing ε, cDPO (Mitchell 2023, eq. 3): the pair counts the other way
    round with weight ε."""
    smoothing = run.options(DpoOptions).dpo_label_smoothing
    return _of_margins(run, lambda beta, x: -(1 - smoothing) * logsigmoid(beta * x) - smoothing * logsigmoid(-beta * x))


def hinge(run: Run) -> Loss:
    """SLiC-HF (arXiv:2305.10425, eq. 1) on DPO's margin: max(0, 1 - β margin)."""
    return _of_margins(run, lambda beta, x: relu(1 - beta * x))


def ipo(run: Run) -> Loss:
    """IPO (arXiv:2310.12036, eq. 17): (margin - 1 / 2β)², with log-probabilities averaged over tokens, without which
    the target would depend on length."""
    if not run.options(PreferenceOptions).pref_beta:
        raise ConfigError(f"{run.plan.where('pref_beta')}: ipo divides by it. Set a number above 0")
    return _of_margins(run, lambda beta, x: (x - 1 / (2 * beta)) ** 2)


def _of_margins(run: Run, loss: Callable[[float, torch.Tensor], torch.Tensor]) -> Loss:
    beta = run.options(PreferenceOptions).pref_beta
    return lambda scores: _rewarded(beta, scores, loss(beta, scores.margins_P))


def kto_pair(run: Run) -> Loss:
    """KTO (arXiv:2402.01306, eq. 7 and 8) on pairs: each answer against how far the policy has moved on the others.

    The mean of 1 - σ(β (r_w - z_l)) and 1 - σ(β (z_w - r_l)), with z the mean ratio of the step's answers of that side,
    at least 0, which is not learnt through.
    """
    beta = run.options(PreferenceOptions).pref_beta

    def loss(scores: PairScores) -> PairLoss:
        chosen, rejected = scores.drift.clamp(min=0)
        liked = 1 - torch.sigmoid(beta * (scores.chosen_ratios_P - rejected))
        disliked = 1 - torch.sigmoid(beta * (chosen - scores.rejected_ratios_P))
        return _rewarded(beta, scores, (liked + disliked) / 2)

    return loss


def _rewarded(beta: float, scores: PairScores, losses_P: torch.Tensor) -> PairLoss:
    return PairLoss(losses_P, beta * scores.chosen_ratios_P, beta * scores.rejected_ratios_P)


def bco(chosen_rewards_P: torch.Tensor, rejected_rewards_P: torch.Tensor, baseline: torch.Tensor) -> torch.Tensor:
    """BCO (arXiv:2404.04656, eq. 7 and 9): a classifier of good and bad answers. baseline: δ, the mean reward."""
    return -logsigmoid(chosen_rewards_P - baseline) - logsigmoid(baseline - rejected_rewards_P)
