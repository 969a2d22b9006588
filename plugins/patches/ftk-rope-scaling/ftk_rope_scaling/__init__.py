"""Longer contexts by scaling rotary positions: linear, dynamic, yarn, llama3."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import ftk


@ftk.options
class RopeScalingOptions:
    """How far, and by which formula, a model reaches beyond the context that it was made for."""

    rope_scaling: Literal["linear", "dynamic", "yarn", "llama3"] | None = ftk.option(
        None, help="Formula by which rotary positions are scaled when cutoff_len is longer than the model's context."
    )
    rope_scaling_factor: float | None = ftk.option(
        None,
        help="How many times the model's original context; unset is the smallest whole number that holds cutoff_len.",
        minimum=1,
    )


@ftk.hookimpl
def ftk_model_patches() -> Iterator[ftk.ModelPatch]:
    yield ftk.ModelPatch(
        "rope-scaling",
        config_target="ftk_rope_scaling.scaling:scale",
        options=RopeScalingOptions,
        switch="rope_scaling",
        reads=("cutoff_len",),
        summary="Longer contexts by scaling rotary positions",
    )
