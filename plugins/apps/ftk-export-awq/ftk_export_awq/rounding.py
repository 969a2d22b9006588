"""Rounding with AWQ."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from ftk import PluginError
from ftk_export.by_gptqmodel import round_off

if TYPE_CHECKING:
    from ftk.run import Run


def write(model: Any, folder: Path, run: Run) -> None:
    """Raises PluginError without a GPU, which gptqmodel needs for this."""
    if not torch.cuda.is_available():
        raise PluginError(
            "export_format: awq: gptqmodel rounds with AWQ on NVIDIA GPUs only, and none is here. Take gptq"
        )
    round_off(model, folder, run, "awq", _loaded)


def _loaded(folder: str, sizes: dict[str, int], device: str) -> Any:
    from gptqmodel import GPTQModel, QuantizeConfig

    return GPTQModel.load(folder, QuantizeConfig(**sizes, quant_method="awq", format="gemm"), device=device)
