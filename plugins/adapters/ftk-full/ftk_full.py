"""Full fine-tuning: every weight learns, in float32 unless ``pure_bf16`` says otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import ftk

if TYPE_CHECKING:
    from ftk.run import Run


@ftk.hookimpl
def ftk_adapters() -> Iterator[ftk.Adapter]:
    yield ftk.Adapter(
        "full",
        target="ftk_full:apply",
        saves="model",
        reads=("pure_bf16",),
        excludes=("adapter_name_or_path", "quantizer"),
        summary="Every weight learns; the result is a whole model",
    )


def apply(model: Any, run: Run, trainable: bool) -> Any:
    """The model with every parameter learning but those that a patch keeps.

    All are float32, so that small steps are not rounded away and the model computes in one type; with ``pure_bf16``
    they keep their type. With ``trainable=False`` nothing is changed.
    Raises ModelError when patches keep everything.
    """
    if not trainable:
        return model
    from ftk_training.learning import settle, value, why_kept

    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not why_kept(run, name))
        if not value(run, "pure_bf16"):
            parameter.data = parameter.data.float()
    settle(model, run, run.plan.where("finetuning_type"))
    return model
