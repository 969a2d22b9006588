"""``export_format: torchao``: PyTorch's own eight bits, a scale for each row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ftk
from ftk_export import ExportFormat

if TYPE_CHECKING:
    from ftk.run import Run


@ftk.hookimpl
def ftk_export_formats() -> Iterator[ExportFormat]:
    yield ExportFormat(
        "torchao",
        target="ftk_export_torchao:write",
        bits=(8,),
        requires=("torchao",),
        extra="backend",
        size=3.2,
        tolerance=0.05,
        summary="torchao: a folder that transformers and vLLM load in 8 bits",
    )


def write(model: Any, folder: Path, run: Run) -> None:
    """Fill the folder. Raises PluginError when torchao cannot quantise here."""
    from ftk_export.quantising import write_in_few_bits
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    write_in_few_bits(model, folder, run, TorchAoConfig(Int8WeightOnlyConfig()))
