"""Stage kto: learn from answers that were liked or disliked, each by itself (Ethayarajh et al. 2024)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import ftk
from ftk_data import DataOptions, TemplateOptions
from ftk_training import Check, TrainingOptions
from ftk_training.preference_options import PrecomputeOptions, PreferenceOptions, ReferenceOptions


@ftk.options
class KtoOptions:
    """How much liked and disliked answers count."""

    kto_chosen_weight: float = ftk.option(1.0, help="Weight of the losses of liked answers.", minimum=0)
    kto_rejected_weight: float = ftk.option(1.0, help="Weight of the losses of disliked answers.", minimum=0)


OfReference = (ReferenceOptions, PrecomputeOptions)


@ftk.hookimpl
def ftk_trainers() -> Iterable[ftk.Trainer]:
    yield ftk.Trainer(
        "kto",
        target="ftk_kto.training:train",
        rows="ftk_data.rows:build_feedback",
        examples="feedback",
        options=(DataOptions, TemplateOptions, TrainingOptions, KtoOptions, PreferenceOptions, *OfReference),
        summary="KTO: learn from answers that were liked or disliked",
    )


@ftk.hookimpl
def ftk_checks() -> Iterator[Check]:
    yield Check(
        "kto-loss",
        target="ftk_kto.checking:loss_by_hand",
        needs=("trainer:kto",),
        summary="The loss of answers is the formula of the paper, z0 included",
        mend="A patch or a plugin changes the loss. Take out those that ftk run --dry-run lists, one by one",
    )
