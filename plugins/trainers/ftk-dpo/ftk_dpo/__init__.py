"""Stage dpo: learn to prefer one answer to another, without a reward model (Rafailov et al. 2023, arXiv:2305.18290).

Opens the kind ``preference_loss``: what is made of the log-probabilities of a pair's two answers. Other plugins add
theirs with the hook ``ftk_preference_losses``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import ftk
from ftk_data import DataOptions, TemplateOptions
from ftk_training import Check, TrainingOptions
from ftk_training.preference_options import PrecomputeOptions, PreferenceOptions, ReferenceOptions

__all__ = ["DpoOptions", "PreferenceLoss", "WithReference"]


@ftk.options
class DpoOptions:
    """How the answers of a pair are compared."""

    pref_loss: str = ftk.option(
        "sigmoid", help="Which loss of preference: sigmoid, hinge, ipo, kto_pair, or what a plugin adds."
    )
    dpo_label_smoothing: float = ftk.option(
        0.0,
        help="cDPO: how likely it is that the two answers of a pair were swapped.",
        minimum=0,
        maximum=0.5,
        needs=("pref_loss=sigmoid",),
    )
    ld_alpha: float | None = ftk.option(
        None,
        help="LD-DPO: how much the log-probability of tokens counts that are farther back than the shorter answer of a "
        "pair is long; unset is fully.",
        minimum=0,
        maximum=1,
    )
    share_prompts: bool | None = ftk.option(
        None,
        help="Compute a prompt once for both answers; unset does where it is equal for the model and saves a tenth of "
        "the tokens, true wherever it is equal.",
    )


@ftk.options
class BcoOptions:
    """The term of binary classifier optimisation beside a loss."""

    pref_bco_weight: float = ftk.option(
        0.0, help="Weight of the BCO term beside the loss of preference, of which the mean is taken.", minimum=0
    )


@dataclass(frozen=True, eq=False, repr=False)
class PreferenceLoss(ftk.Spec):
    """Target: ``build(run) -> loss``, and ``loss(scores: ftk_dpo.scores.PairScores) -> ftk_dpo.scores.PairLoss``.

    averaged: scores are means over the tokens of an answer instead of sums.
    reference: it measures the policy against a reference. Without, none is loaded and scores have none.
    drift: it reads ``scores.drift``, means over all pairs of the optimizer step, which costs another pass.
    """

    kind: ClassVar[str] = "preference_loss"
    averaged: bool = False
    reference: bool = True
    drift: bool = False


WithReference = (ReferenceOptions, PrecomputeOptions, BcoOptions)
"""The option classes of a loss with a reference."""


@ftk.hookimpl
def ftk_kinds() -> Iterator[ftk.Kind]:
    yield ftk.Kind(PreferenceLoss, "ftk_preference_losses", selector="pref_loss", required=True, within="trainer:dpo")


@ftk.hookimpl
def ftk_trainers() -> Iterable[ftk.Trainer]:
    yield ftk.Trainer(
        "dpo",
        target="ftk_dpo.training:train",
        rows="ftk_data.rows:build_pairs",
        examples="pairs",
        options=(DataOptions, TemplateOptions, TrainingOptions, PreferenceOptions, DpoOptions),
        summary="Preferences: make the better of two answers likelier and the worse one less likely",
    )


@ftk.hookimpl
def ftk_preference_losses() -> Iterator[PreferenceLoss]:
    yield PreferenceLoss(
        "sigmoid",
        target="ftk_dpo.losses:sigmoid",
        options=WithReference,
        default=True,
        summary="DPO, with label smoothing cDPO",
    )
    yield PreferenceLoss(
        "hinge", target="ftk_dpo.losses:hinge", options=WithReference, summary="SLiC's hinge on DPO's margin"
    )
    yield PreferenceLoss(
        "ipo",
        target="ftk_dpo.losses:ipo",
        options=WithReference,
        averaged=True,
        summary="IPO: a margin of a given size instead of an ever larger one",
    )
    yield PreferenceLoss(
        "kto_pair",
        target="ftk_dpo.losses:kto_pair",
        options=WithReference,
        drift=True,
        summary="KTO's value of each answer, on pairs",
    )


@ftk.hookimpl
def ftk_checks() -> Iterator[Check]:
    yield Check(
        "dpo-loss",
        target="ftk_dpo.checking:loss_by_hand",
        needs=("trainer:dpo",),
        summary="The loss of pairs is the formula of the paper",
        mend="A patch or a plugin changes the loss. Take out those that ftk run --dry-run lists, one by one",
    )
