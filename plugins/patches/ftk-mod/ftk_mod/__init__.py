"""Mixture-of-Depths: blocks that only some of the tokens go through."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import ftk


@ftk.options
class ModOptions:
    """Which blocks route, and how many tokens go through one."""

    mixture_of_depths: Literal["convert", "load"] | None = ftk.option(
        None, help="convert: give a model routers (Mixture-of-Depths); load: go on with one that has them."
    )
    mod_capacity: float = ftk.option(
        0.125, help="Share of a row's tokens that go through a block that routes.", above=0, maximum=1
    )
    mod_every: int = ftk.option(2, help="Every so many blocks one routes: 2 is every other block.", minimum=1)


@ftk.hookimpl
def ftk_model_patches() -> Iterator[ftk.ModelPatch]:
    yield ftk.ModelPatch(
        "mod",
        config_target="ftk_mod.converting:check",
        target="ftk_mod.converting:patch",
        options=ModOptions,
        switch="mixture_of_depths",
        reads=("gradient_accumulation_steps",),
        excludes=(
            "adapter:lora", "adapter:oft", "quantizer", "fp16", "flash_attn=fa2", "flash_attn=fa3", "shift_attn",
        ),
        summary="Blocks that only some tokens go through (Mixture-of-Depths)",
    )  # fmt: skip
