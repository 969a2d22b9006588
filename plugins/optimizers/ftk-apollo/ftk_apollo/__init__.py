"""APOLLO: gradients scaled as Adam would scale them, by what a random projection tells of it (Zhu et al. 2024)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import ftk


@ftk.options
class ApolloOptions:
    """Which gradients are scaled, and how the scale is found."""

    use_apollo: bool = ftk.option(False, help="Train with APOLLO: moments of projected gradients only set the scale.")
    apollo_target: tuple[str, ...] = ftk.option(
        ("all",),
        help="Parts of module names, or all: every matrix but embeddings and output layer. The rest: AdamW.",
    )
    apollo_rank: int = ftk.option(16, help="Rank of the projection.", minimum=1)
    apollo_update_interval: int = ftk.option(200, help="Steps between two projections.", minimum=1)
    apollo_scale: float = ftk.option(32.0, help="The scaled gradient is multiplied with its square root.", above=0)
    apollo_proj: Literal["svd", "random"] = ftk.option(
        "random", help="random draws the projection anew in each step from the seed, svd computes and keeps it."
    )
    apollo_proj_type: Literal["std", "right", "left"] = ftk.option(
        "std", help="Which side is projected: std the smaller one, left the rows, right the columns."
    )
    apollo_scale_type: Literal["channel", "tensor"] = ftk.option(
        "channel", help="A scale for each channel of the side that is not projected, or one for the whole matrix."
    )
    apollo_layerwise: bool = ftk.option(
        False,
        help="Update each weight within the backward pass and forget its gradient at once.",
        needs=("gradient_accumulation_steps=1",),
        excludes=("fp16",),
    )
    apollo_scale_front: bool = ftk.option(
        False, help="Limit how fast the step grows after apollo_scale instead of before."
    )


@ftk.hookimpl
def ftk_optimizers() -> Iterator[ftk.Optimizer]:
    yield ftk.Optimizer(
        "apollo",
        target="ftk_apollo.optimizer:build",
        options=ApolloOptions,
        switch="use_apollo",
        reads=("learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon"),
        excludes=("adapter:lora", "adapter:oft", "deepspeed", "fsdp"),
        summary="Gradients scaled by channel, from moments of a random projection",
    )
