"""PiSSA: LoRA that begins with the largest singular vectors instead of zeros (Meng et al. 2024, eq. 2 to 4)."""

from __future__ import annotations

from collections.abc import Iterator

import ftk
from ftk_peft import LoraVariant


@ftk.options
class PissaOptions:
    """How the terms begin, and in which form the result is saved."""

    pissa_init: bool = ftk.option(
        False, help="PiSSA: begin with the largest singular values and vectors of each matrix; the rest stays frozen."
    )
    pissa_iter: int = ftk.option(
        16, help="PiSSA: iterations of the fast decomposition; -1 is the exact one.", minimum=-1
    )
    pissa_convert: bool = ftk.option(
        False,
        help="PiSSA: the result is a plain LoRA of twice the rank for the original model; false saves what is beneath "
        "the adapter, a model of its own, beside it.",
    )


@ftk.hookimpl
def ftk_lora_variants() -> Iterator[LoraVariant]:
    yield LoraVariant(
        "pissa",
        config_target="ftk_pissa.principal:check",
        target="ftk_pissa.principal:begin",
        options=PissaOptions,
        switch="pissa_init",
        excludes=("quantizer", "trainer:ppo", "trainer:kto", "trainer:dpo", "fsdp"),
        summary="PiSSA: terms begin with the largest singular vectors",
    )
