"""torchao: PyTorch's own quantisation. Linear layers stay what they are; their weights become tensors of a new sort."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import ftk

if TYPE_CHECKING:
    from ftk.run import Run


@ftk.options
class TorchaoOptions:
    """What eight bits hold."""

    torchao_type: Literal["int8", "fp8"] = ftk.option(
        "int8", help="int8: whole numbers with a scale for each row; fp8: floats of 4 and 3 bits (e4m3)."
    )


@ftk.hookimpl
def ftk_quantizers() -> Iterator[ftk.Quantizer]:
    yield ftk.Quantizer(
        "torchao",
        target="ftk_torchao:configure",
        bits=(8,),
        methods=("torchao",),
        options=TorchaoOptions,
        requires=("torchao",),
        extra="backend",
        excludes=("adapter_name_or_path>1",),
        summary="torchao: weights in int8 or fp8",
    )


def configure(run: Run) -> Any:
    """transformers' config: eight bits for each weight of a linear layer, activations as they are."""
    from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    types = {"int8": Int8WeightOnlyConfig, "fp8": Float8WeightOnlyConfig}
    return TorchAoConfig(types[run.options(TorchaoOptions).torchao_type]())
