"""``export_format: awq``: weights rounded to four bits after those are scaled up that meet large activations.

AWQ: Lin et al. 2023.
"""

from __future__ import annotations

from collections.abc import Iterator

import ftk
from ftk_export import ExportFormat


@ftk.hookimpl
def ftk_export_formats() -> Iterator[ExportFormat]:
    yield ExportFormat(
        "awq",
        target="ftk_export_awq.rounding:write",
        bits=(4,),
        calibrated=True,
        requires=("gptqmodel", "optimum.gptq"),
        extra="backend",
        size=3.2,
        tolerance=0.3,
        summary="AWQ: a folder that transformers, vLLM and SGLang load in 4 bits; made on a GPU",
    )
