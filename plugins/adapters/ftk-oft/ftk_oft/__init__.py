"""OFT: a rotation of each chosen matrix' inputs learns, in blocks (Qiu et al. 2023; QOFT: Qiu et al. 2025)."""

from __future__ import annotations

from collections.abc import Iterator

import ftk
from ftk_peft import PeftOptions


@ftk.options
class OftOptions:
    """Where the rotations go and how large their blocks are."""

    oft_block_size: int = ftk.option(32, help="Inputs that one block rotates among themselves.", minimum=0)
    oft_rank: int = ftk.option(0, help="Blocks of each matrix, instead of oft_block_size; 0 is unset.", minimum=0)
    oft_target: tuple[str, ...] = ftk.option(
        ("all",), help="Names of modules, or all: every linear layer of the language model, but not the output layer."
    )
    module_dropout: float = ftk.option(
        0.0, help="Share of the blocks that rotate nothing in a training step.", minimum=0, maximum=1
    )

    def __post_init__(self) -> None:
        if not self.oft_rank and not self.oft_block_size:
            raise ValueError("oft_rank and oft_block_size are both 0. Set one of them")


@ftk.hookimpl
def ftk_adapters() -> Iterator[ftk.Adapter]:
    yield ftk.Adapter(
        "oft",
        target="ftk_oft.adapter:apply",
        saves="adapter",
        options=(PeftOptions, OftOptions),
        reads=("bf16", "fp16", "pure_bf16", "hf_hub_token", "cache_dir"),
        summary="Rotations in front of frozen matrices; QOFT on a quantised model",
    )
