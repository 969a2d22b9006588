"""``export_format: gptq``: weights rounded so that the layers still say the same of some real texts.

GPTQ (Frantar et al. 2022) rounds one column after the other, each making up for the errors of those before.
"""

from __future__ import annotations

from collections.abc import Iterator

import ftk
from ftk_export import ExportFormat


@ftk.hookimpl
def ftk_export_formats() -> Iterator[ExportFormat]:
    yield ExportFormat(
        "gptq",
        target="ftk_export_gptq.rounding:write",
        switch="export_quantization_bit",  # alone it means this format, as in LLaMA-Factory
        bits=(2, 3, 4, 8),
        calibrated=True,
        requires=("gptqmodel", "optimum.gptq"),
        extra="backend",
        size=3.2,
        tolerance=0.3,
        summary="GPTQ: a folder that transformers, vLLM and SGLang load in 2 to 8 bits",
    )
