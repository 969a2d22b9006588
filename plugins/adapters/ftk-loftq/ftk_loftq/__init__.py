"""LoftQ: LoRA that begins with what quantisation has lost (Li et al. 2023, algorithm 1)."""

from __future__ import annotations

from collections.abc import Iterator

import ftk
from ftk_peft import LoraVariant


@ftk.options
class LoftqOptions:
    """How the terms begin on a quantised model."""

    loftq_init: bool = ftk.option(
        False, help="LoftQ: begin with the best approximation of what each matrix lost when it was quantised."
    )
    loftq_iter: int = ftk.option(
        1,
        help="LoftQ: how often matrix and term are fitted in turn. Above 1 (nf4 and fp4 alone) the quantised matrices "
        "change, too, and are saved beside the adapter.",
        minimum=1,
    )


@ftk.hookimpl
def ftk_lora_variants() -> Iterator[LoraVariant]:
    yield LoraVariant(
        "loftq",
        target="ftk_loftq.alternating:begin",
        options=LoftqOptions,
        switch="loftq_init",
        needs=("quantization_bit",),
        summary="LoftQ: terms begin with what quantisation has lost",
    )
