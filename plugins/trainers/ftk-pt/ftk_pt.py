"""Stage pt: go on pre-training on plain text. The loss is the mean cross-entropy of all tokens."""

from __future__ import annotations

from collections.abc import Iterable

import ftk
from ftk_data import DataOptions
from ftk_training import TrainingOptions


@ftk.hookimpl
def ftk_trainers() -> Iterable[ftk.Trainer]:
    yield ftk.Trainer(
        "pt",
        target="ftk_training.fitting:fit",
        rows="ftk_data.rows:build_text",
        examples="text",
        options=(DataOptions, TrainingOptions),
        uses=tuple(kind for kind in ftk.Trainer.uses if kind not in ("template", "media")),
        summary="Pre-training: go on with plain text",
    )
