"""``export_format: bnb``: nf4 with quantised scales (Dettmers et al. 2023), or LLM.int8 (Dettmers et al. 2022)."""

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
        "bnb",
        target="ftk_export_bnb:write",
        bits=(4, 8),
        requires=("bitsandbytes",),
        size=3.2,
        tolerance=0.25,
        summary="bitsandbytes: a folder that transformers and vLLM load in 4 or 8 bits",
    )


def write(model: Any, folder: Path, run: Run) -> None:
    """Fill the folder. Raises PluginError when bitsandbytes cannot quantise here."""
    import torch
    from ftk_export.quantising import bits_of, write_in_few_bits
    from transformers import BitsAndBytesConfig

    if bits_of(run, usual=4) == 8:
        return write_in_few_bits(model, folder, run, BitsAndBytesConfig(load_in_8bit=True))
    few = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32 if model.dtype == torch.float32 else torch.bfloat16,
    )
    return write_in_few_bits(model, folder, run, few)
