"""bitsandbytes: LLM.int8 (Dettmers et al. 2022) and the 4-bit types of QLoRA (Dettmers et al. 2023)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import ftk


@ftk.options
class BnbOptions:
    """How four bits are spent."""

    quantization_type: Literal["nf4", "fp4"] = ftk.option(
        "nf4", help="The 16 values of four bits: nf4 fits normally distributed weights, fp4 is a tiny float.",
        needs=("quantization_bit=4",),
    )  # fmt: skip
    double_quantization: bool = ftk.option(
        True, help="Quantise the scales, too: 4.13 bits for each weight instead of 4.5."
    )
    quantization_device_map: Literal["auto"] | None = ftk.option(
        None, help="auto spreads a model that only answers over the accelerators, which ftk does anyway.",
        needs=("quantization_bit=4",), excludes=("trainer",),
    )  # fmt: skip


@ftk.hookimpl
def ftk_quantizers() -> Iterator[ftk.Quantizer]:
    yield ftk.Quantizer(
        "bnb",
        target="ftk_bnb.few_bits:configure",
        stored_target="ftk_bnb.few_bits:adjust",
        default=True,
        bits=(4, 8),
        methods=("bitsandbytes",),
        options=BnbOptions,
        requires=("bitsandbytes",),
        reads=("bf16", "fp16", "pure_bf16", "infer_dtype", "fsdp"),
        excludes=("adapter_name_or_path>1",),
        summary="bitsandbytes: LLM.int8, nf4, fp4, double quantisation",
    )
