"""GaLore: Adam in the best low-rank subspace of each gradient (Zhao et al. 2024)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import ftk


@ftk.options
class GaloreOptions:
    """Which gradients are projected, onto what, and how often."""

    use_galore: bool = ftk.option(False, help="Train with GaLore: Adam's moments of projected gradients, far smaller.")
    galore_target: tuple[str, ...] = ftk.option(
        ("all",),
        help="Parts of module names, or all: every matrix but embeddings and output layer. The rest: AdamW.",
    )
    galore_rank: int = ftk.option(16, help="Rank of the projection.", minimum=1)
    galore_update_interval: int = ftk.option(200, help="Steps between two projections.", minimum=1)
    galore_scale: float = ftk.option(2.0, help="What the projected step is multiplied with.", above=0)
    galore_proj_type: Literal["std", "reverse_std", "right", "left", "full"] = ftk.option(
        "std",
        help="Which side is projected: std the smaller one, reverse_std the larger one, left the rows, right the "
        "columns, full both.",
    )
    galore_layerwise: bool = ftk.option(
        False,
        help="Update each weight within the backward pass and forget its gradient at once.",
        needs=("gradient_accumulation_steps=1",),
        excludes=("fp16",),
    )


@ftk.hookimpl
def ftk_optimizers() -> Iterator[ftk.Optimizer]:
    yield ftk.Optimizer(
        "galore",
        target="ftk_galore.optimizer:build",
        options=GaloreOptions,
        switch="use_galore",
        reads=("learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "optim"),
        excludes=("adapter:lora", "adapter:oft", "deepspeed", "fsdp"),
        summary="Adam in the best low-rank subspace of each gradient",
    )
