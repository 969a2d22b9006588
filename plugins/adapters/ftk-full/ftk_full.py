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
    """The model with every parameter learning, in float32 so that small steps are not rounded away.

    With ``pure_bf16`` the parameters keep their type, and with ``trainable=False`` nothing is changed.
    """
    if trainable:
        for parameter in model.parameters():
            parameter.requires_grad_(True)
            if not run.value("pure_bf16"):
                parameter.data = parameter.data.float()
    return model
