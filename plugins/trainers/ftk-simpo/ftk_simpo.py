"""SimPO: a margin between the mean log-probabilities of two answers (Meng et al. 2024, arXiv:2405.14734).

It needs no reference.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import ftk
from ftk_dpo import PreferenceLoss
from ftk_training import Check
from ftk_training.preference_options import PreferenceOptions

if TYPE_CHECKING:
    from ftk.run import Run
    from ftk_dpo.scores import Loss, PairLoss, PairScores
    from ftk_training.checks import Bench, Outcome


@ftk.options
class SimpoOptions:
    """The margin."""

    simpo_gamma: float = ftk.option(0.5, help="SimPO: by how much the better answer's reward shall exceed the other's.")


@ftk.hookimpl
def ftk_preference_losses() -> Iterator[PreferenceLoss]:
    yield PreferenceLoss(
        "simpo",
        target="ftk_simpo:build",
        options=SimpoOptions,
        averaged=True,
        reference=False,
        summary="SimPO: a margin between mean log-probabilities, without a reference",
    )


@ftk.hookimpl
def ftk_checks() -> Iterator[Check]:
    yield Check(
        "simpo-loss",
        target="ftk_simpo:loss_by_hand",
        needs=("preference_loss:simpo",),
        summary="The loss of pairs is the formula of the paper",
        mend="A patch or a plugin changes the loss. Take out those that ftk run --dry-run lists, one by one",
    )


def build(run: Run) -> Loss:
    """Eq. 6: -log σ(β log p(y_w) - β log p(y_l) - γ), with log p the mean over tokens."""
    from ftk_dpo.scores import PairLoss
    from torch.nn.functional import logsigmoid

    beta, gamma = run.options(PreferenceOptions).pref_beta, run.options(SimpoOptions).simpo_gamma

    def loss(scores: PairScores) -> PairLoss:
        chosen_P, rejected_P = beta * scores.chosen_P, beta * scores.rejected_P
        return PairLoss(-logsigmoid(chosen_P - rejected_P - gamma), chosen_P, rejected_P)

    return loss


def loss_by_hand(bench: Bench) -> Outcome:
    """Eq. 6, number by number."""
    from ftk_dpo.checking import Scored, log_sigmoid, of_pairs

    def formula(run: Run, pairs: Sequence[Scored]) -> list[float]:
        beta, gamma = run.value("pref_beta"), run.value("simpo_gamma")
        return [-log_sigmoid(beta * (pair.chosen - pair.rejected) - gamma) for pair in pairs]

    return of_pairs(bench, formula, averaged=True, reference=False)
