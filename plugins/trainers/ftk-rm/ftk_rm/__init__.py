"""Stage rm: a model learns to give the better of two answers the higher reward."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import ftk
from ftk_data import DataOptions, TemplateOptions
from ftk_training import Check, TrainingOptions
from ftk_training.value_head_options import ValueHeadOptions


@ftk.hookimpl
def ftk_trainers() -> Iterable[ftk.Trainer]:
    yield ftk.Trainer(
        "rm",
        target="ftk_rm.training:train",
        rows="ftk_data.rows:build_pairs",
        examples="pairs",
        options=(DataOptions, TemplateOptions, TrainingOptions, ValueHeadOptions),
        reads=("share_prompts",),
        excludes=("model_loader:unsloth",),
        summary="Reward model: the better of two answers gets the higher reward",
    )


@ftk.hookimpl
def ftk_checks() -> Iterator[Check]:
    yield Check(
        "rm-loss",
        target="ftk_rm.checking:loss_by_hand",
        needs=("trainer:rm",),
        summary="The loss of pairs is that of the rewards of their last tokens",
        mend="A patch or a plugin changes the loss. Take out those that ftk run --dry-run lists, one by one",
    )
