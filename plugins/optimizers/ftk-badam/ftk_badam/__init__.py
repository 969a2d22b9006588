"""BAdam: Adam on one block of the model at a time (Luo et al. 2024)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import ftk


@ftk.options
class BadamOptions:
    """What learns when."""

    use_badam: bool = ftk.option(False, help="Train with BAdam: one block, or a part of each matrix, at a time.")
    badam_mode: Literal["layer", "ratio"] = ftk.option(
        "layer", help="layer: one layer at a time; ratio: badam_update_ratio of each weight of all layers."
    )
    badam_start_block: int | None = ftk.option(
        None, help="The first layer, from 0; unset is the first one, the last one, or a random one by mode.", minimum=0
    )
    badam_switch_mode: Literal["ascending", "descending", "random", "fixed"] = ftk.option(
        "ascending", help="Which layer comes next; random goes through all in a new order each time."
    )
    badam_switch_interval: int = ftk.option(50, help="Steps until the next layer; -1 stays at the first.", minimum=-1)
    badam_update_ratio: float = ftk.option(0.05, help="Share of a weight that learns at a time.", above=0, maximum=1)
    badam_mask_mode: Literal["adjacent", "scatter"] = ftk.option(
        "adjacent", help="Which values learn together: neighbours, or ones spread at random."
    )
    badam_verbose: int = ftk.option(0, help="1 logs each switch of layers, 2 also how much learns.", minimum=0)

    def __post_init__(self) -> None:
        if self.badam_switch_interval == 0:
            raise ValueError("badam_switch_interval: 0: give a number of steps, or -1 to stay at the first layer")


@ftk.hookimpl
def ftk_optimizers() -> Iterator[ftk.Optimizer]:
    yield ftk.Optimizer(
        "badam",
        target="ftk_badam.optimizer:build",
        options=BadamOptions,
        switch="use_badam",
        reads=("learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon"),
        excludes=("adapter:lora", "adapter:oft", "deepspeed", "fsdp"),
        summary="Adam on one layer, or a part of each weight, at a time",
    )
