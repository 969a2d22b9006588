"""``ftk lm-eval``: the tasks of lm-evaluation-harness, asked through ftk's engines and templates."""

from __future__ import annotations

from collections.abc import Iterator

import ftk
from ftk_data import TemplateOptions


@ftk.hookimpl
def ftk_commands() -> Iterator[ftk.Command]:
    yield ftk.Command(
        "lm-eval",
        target="ftk_lm_eval.command:lm_eval_command",
        options=TemplateOptions,
        uses=("model_loader", "quantizer", "model_patch", "adapter", "template", "media", "engine"),
        requires=("lm_eval",),
        extra="backend",
        summary="The tasks of lm-evaluation-harness.",
    )
