"""Adam-mini: one second moment for each block of a weight instead of one for each value (Zhang et al. 2024)."""

from __future__ import annotations

from collections.abc import Iterator

import ftk


@ftk.options
class AdamMiniOptions:
    """The switch."""

    use_adam_mini: bool = ftk.option(False, help="Train with Adam-mini: half the optimizer state of AdamW.")


@ftk.hookimpl
def ftk_optimizers() -> Iterator[ftk.Optimizer]:
    yield ftk.Optimizer(
        "adam-mini",
        target="ftk_adam_mini.optimizer:build",
        options=AdamMiniOptions,
        switch="use_adam_mini",
        reads=("learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon"),
        excludes=("deepspeed", "fsdp"),
        summary="AdamW with one second moment for each head, neuron or token",
    )
