"""FP8 (Micikevicius et al. 2022): 8-bit floats in blocks that share a scale, as DeepSeek and Qwen publish models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import ftk

if TYPE_CHECKING:
    from ftk.run import Run


@ftk.hookimpl
def ftk_quantizers() -> Iterator[ftk.Quantizer]:
    yield ftk.Quantizer(
        "fp8",
        stored_target="ftk_fp8:adjust",
        methods=("fp8", "mxfp8"),
        excludes=("adapter_name_or_path>1",),
        summary="Models whose files are in FP8; training gives them plain weights",
    )


def adjust(run: Run, stored: Mapping[str, Any]) -> Mapping[str, Any]:
    """The stored config; with plain weights where something is to learn, because no backward pass reads these files."""
    return stored if run.plan.one("trainer") is None else {**stored, "dequantize": True}
