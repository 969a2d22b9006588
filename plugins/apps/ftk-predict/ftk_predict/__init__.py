"""``ftk predict``: answer the prompts of a data set."""

from __future__ import annotations

from collections.abc import Iterator

import ftk
from ftk_data import DataOptions, TemplateOptions
from ftk_training import PredictionOptions, TrainingOptions


@ftk.hookimpl
def ftk_commands() -> Iterator[ftk.Command]:
    yield ftk.Command(
        "predict",
        target="ftk_predict.command:predict",
        options=(DataOptions, TemplateOptions, TrainingOptions, PredictionOptions),
        uses=(
            "model_loader", "quantizer", "model_patch", "adapter", "source", "converter", "template", "media", "engine",
        ),
        summary="Answer the prompts of a data set, in batches.",
    )  # fmt: skip
