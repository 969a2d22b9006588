"""Shifted sparse attention: long rows are trained at a fraction of the attention (LongLoRA)."""

from __future__ import annotations

from collections.abc import Iterator

import ftk


@ftk.options
class LongLoraOptions:
    """How tokens attend to each other while training."""

    shift_attn: bool = ftk.option(
        False, help="Attend within groups while training, half of the heads in groups moved by half a group (S2-Attn)."
    )
    shift_attn_groups: int = ftk.option(4, help="Groups that a batch's length is split into.", minimum=2)


@ftk.hookimpl
def ftk_model_patches() -> Iterator[ftk.ModelPatch]:
    yield ftk.ModelPatch(
        "longlora",
        target="ftk_longlora.shifting:patch",
        options=LongLoraOptions,
        switch="shift_attn",
        excludes=("flash_attn=fa2", "flash_attn=fa3", "trainer:ppo"),
        summary="Shifted sparse attention while training (LongLoRA)",
    )
