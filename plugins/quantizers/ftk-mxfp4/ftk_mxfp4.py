"""MXFP4 (Open Compute Project 2023): 4-bit floats, 32 of which share a power of two, as gpt-oss is published."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import ftk

if TYPE_CHECKING:
    from ftk.run import Run


@ftk.hookimpl
def ftk_quantizers() -> Iterator[ftk.Quantizer]:
    yield ftk.Quantizer(
        "mxfp4",
        stored_target="ftk_mxfp4:adjust",
        methods=("mxfp4",),
        excludes=("adapter_name_or_path>1",),
        summary="Models whose files are in MXFP4; training gives them plain weights",
    )


def adjust(run: Run, stored: Mapping[str, Any]) -> Mapping[str, Any]:
    """The stored config; with plain weights where something is to learn, because no backward pass reads these files."""
    return stored if run.plan.one("trainer") is None else {**stored, "dequantize": True}
