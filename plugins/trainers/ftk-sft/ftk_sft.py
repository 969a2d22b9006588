"""Stage sft: learn the answers of conversations. The loss is the mean cross-entropy of the trained tokens."""

from __future__ import annotations

from collections.abc import Iterable

import ftk
from ftk_data import DataOptions, TemplateOptions
from ftk_training import TrainingOptions


@ftk.hookimpl
def ftk_trainers() -> Iterable[ftk.Trainer]:
    yield ftk.Trainer(
        "sft",
        target="ftk_training.fitting:fit",
        rows="ftk_data.rows:build_chat",
        examples="chat",
        options=(DataOptions, TemplateOptions, TrainingOptions),
        default=True,
        summary="Supervised fine-tuning: learn the answers of conversations",
    )
