"""Stage rm: a model learns to give the better of two answers the higher reward."""

from __future__ import annotations

from collections.abc import Iterable

import ftk
from ftk_data import DataOptions, TemplateOptions
from ftk_training import TrainingOptions
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
