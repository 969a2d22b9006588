"""EETQ: 8-bit weights with the kernels of NVIDIA's FasterTransformer, on CUDA GPUs alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import ftk

if TYPE_CHECKING:
    from ftk.run import Run


@ftk.hookimpl
def ftk_quantizers() -> Iterator[ftk.Quantizer]:
    yield ftk.Quantizer(
        "eetq",
        target="ftk_eetq:configure",
        bits=(8,),
        methods=("eetq",),
        requires=("kernels",),
        extra="backend",
        gpu=True,
        excludes=("adapter_name_or_path>1",),
        summary="EETQ: weights in 8 bits, on CUDA GPUs",
    )


def configure(run: Run) -> Any:
    """transformers' config; it fetches the kernels from the hub when they are used first."""
    from transformers import EetqConfig

    return EetqConfig("int8")
