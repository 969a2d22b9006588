"""ORPO: learn the chosen answer, and that its odds are better than the rejected one's (Hong et al. 2024,
arXiv:2403.07691). It needs no reference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import ftk
from ftk_dpo import PreferenceLoss
from ftk_training import Check
from ftk_training.preference_options import PreferenceOptions

if TYPE_CHECKING:
    import torch
    from ftk.run import Run
    from ftk_dpo.scores import Loss, PairLoss, PairScores
    from ftk_training.checks import Bench, Outcome


@ftk.hookimpl
def ftk_preference_losses() -> Iterator[PreferenceLoss]:
    yield PreferenceLoss(
        "orpo",
        target="ftk_orpo:build",
        averaged=True,
        reference=False,
        summary="ORPO: the chosen answer and its odds against the rejected one's, without a reference",
    )


@ftk.hookimpl
def ftk_checks() -> Iterator[Check]:
    yield Check(
        "orpo-loss",
        target="ftk_orpo:loss_by_hand",
        needs=("preference_loss:orpo",),
        summary="The loss of pairs is the formula of the paper",
        mend="A patch or a plugin changes the loss. Take out those that ftk run --dry-run lists, one by one",
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


def loss_by_hand(bench: Bench) -> Outcome:
    """Eq. 6 and 7, number by number."""
    import math

    from ftk_dpo.checking import Scored, log_sigmoid, of_pairs

    def formula(run: Run, pairs: Sequence[Scored]) -> list[float]:
        odds = [[math.exp(one) / (1 - math.exp(one)) for one in (pair.chosen, pair.rejected)] for pair in pairs]
        ratios = [math.log(chosen / rejected) for chosen, rejected in odds]
        beta = run.value("pref_beta")
        return [-pair.chosen - beta * log_sigmoid(ratio) for pair, ratio in zip(pairs, ratios, strict=True)]

    return of_pairs(bench, formula, averaged=True, reference=False)
