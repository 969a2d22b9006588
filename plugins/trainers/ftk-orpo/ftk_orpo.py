"""ORPO: learn the chosen answer, and that its odds are better than the rejected one's (Hong et al. 2024,
arXiv:2403.07691). It needs no reference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import ftk
from ftk_dpo import PreferenceLoss
from ftk_training.preference_options import PreferenceOptions

if TYPE_CHECKING:
    import torch
    from ftk.run import Run
    from ftk_dpo.scores import Loss, PairLoss, PairScores


@ftk.hookimpl
def ftk_preference_losses() -> Iterator[PreferenceLoss]:
    yield PreferenceLoss(
        "orpo",
        target="ftk_orpo:build",
        averaged=True,
        reference=False,
        summary="ORPO: the chosen answer and its odds against the rejected one's, without a reference",
    )


def build(run: Run) -> Loss:
    """Eq. 6 and 7, with λ = ``pref_beta``: -log p(y_w) + λ (-log σ(log odds(y_w) / odds(y_l))).

    log p is the mean over tokens and odds(y) = p / (1 - p). P: pairs of a batch.
    """
    from ftk_dpo.scores import PairLoss
    from torch.nn.functional import logsigmoid

    beta = run.options(PreferenceOptions).pref_beta

    def loss(scores: PairScores) -> PairLoss:
        learnt_P = -scores.chosen_P
        odds_P = -logsigmoid(_log_odds(scores.chosen_P) - _log_odds(scores.rejected_P))
        return PairLoss(
            learnt_P + beta * odds_P,
            beta * scores.chosen_P,
            beta * scores.rejected_P,
            {"sft_loss": learnt_P, "odds_ratio_loss": odds_P},
        )

    return loss


def _log_odds(log_probs_P: torch.Tensor) -> torch.Tensor:
    """log p - log(1 - p). A p that rounds to 1 is taken as the next smaller number, which keeps it finite."""
    import torch

    log_probs_P = log_probs_P.clamp(max=-torch.finfo(log_probs_P.dtype).eps)
    return log_probs_P - torch.log(-torch.expm1(log_probs_P))
