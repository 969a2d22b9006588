"""Rounding with GPTQ."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftk_export.by_gptqmodel import round_off

if TYPE_CHECKING:
    from ftk.run import Run


def write(model: Any, folder: Path, run: Run) -> None:
    """Raises PluginError when gptqmodel cannot do it here."""
    round_off(model, folder, run, "gptq", _loaded)


def _loaded(folder: str, sizes: dict[str, int], device: str) -> Any:
    from gptqmodel import GPTQModel, QuantizeConfig

    return GPTQModel.load(folder, QuantizeConfig(**sizes, quant_method="gptq", format="gptq"), device=device)
