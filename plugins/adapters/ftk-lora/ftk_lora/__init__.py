"""LoRA: what learns is a low-rank term beside each chosen matrix (Hu et al. 2021, eq. 3)."""

from __future__ import annotations

from collections.abc import Iterator

import ftk
from ftk_peft import PeftOptions


@ftk.options
class LoraOptions:
    """Where the low-rank terms go and how large they are."""

    lora_rank: int = ftk.option(8, help="Rank of each term.", minimum=1)
    lora_alpha: int | None = ftk.option(None, help="Scale of the terms, divided by the rank; unset is twice the rank.")
    lora_dropout: float = ftk.option(0.0, help="Share of a term's inputs dropped while training.", minimum=0, maximum=1)
    lora_target: tuple[str, ...] = ftk.option(
        ("all",),
        help="Names of modules, or all: every linear layer and every fused expert of the language model, but not the "
        "output layer.",
    )
    use_rslora: bool = ftk.option(False, help="Divide by the square root of the rank (Kalajdzievski 2023, eq. 9).")


@ftk.hookimpl
def ftk_adapters() -> Iterator[ftk.Adapter]:
    yield ftk.Adapter(
        "lora",
        target="ftk_lora.adapter:apply",
        default=True,
        saves="adapter",
        options=(PeftOptions, LoraOptions),
        reads=("bf16", "fp16", "pure_bf16", "hf_hub_token", "cache_dir"),
        summary="Low-rank terms beside frozen matrices",
    )
