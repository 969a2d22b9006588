"""quanto: Hugging Face's quantisation in plain PyTorch, for devices that the others leave out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import ftk

if TYPE_CHECKING:
    from ftk.run import Run


@ftk.hookimpl
def ftk_quantizers() -> Iterator[ftk.Quantizer]:
    yield ftk.Quantizer(
        "quanto",
        target="ftk_quanto:configure",
        bits=(2, 4, 8),
        requires=("optimum.quanto",),
        extra="backend",
        excludes=("adapter_name_or_path>1",),
        summary="quanto: weights in 2, 4 or 8 bits",
    )


def configure(run: Run) -> Any:
    """transformers' config: whole numbers of so many bits for the weights of linear layers, activations as they are."""
    from transformers import QuantoConfig

    return QuantoConfig(weights=f"int{run.value('quantization_bit')}")
