"""``export_format: gptq`` and ``awq``: weights rounded so that the layers still say the same of some real texts.

GPTQ (Frantar et al. 2022) rounds one column after the other, each making up for the errors of those before; AWQ (Lin et
al. 2023) scales up what meets large activations. One back end, gptqmodel, does both, so they are one plugin.
"""

from __future__ import annotations

from collections.abc import Iterator

import ftk
from ftk_export import ExportFormat

NEEDS = ("gptqmodel", "optimum.gptq")


@ftk.hookimpl
def ftk_export_formats() -> Iterator[ExportFormat]:
    yield ExportFormat(
        "gptq",
        target="ftk_export_gptq.rounding:write_gptq",
        switch="export_quantization_bit",  # alone it means this format, as in LLaMA-Factory
        bits=(2, 3, 4, 8),
        calibrated=True,
        requires=NEEDS,
        extra="backend",
        size=3.2,
        tolerance=0.3,
        summary="GPTQ: a folder that transformers, vLLM and SGLang load in 2 to 8 bits",
    )
    yield ExportFormat(
        "awq",
        target="ftk_export_gptq.rounding:write_awq",
        bits=(4,),
        calibrated=True,
        requires=NEEDS,
        extra="backend",
        size=3.2,
        tolerance=0.3,
        summary="AWQ: a folder that transformers, vLLM and SGLang load in 4 bits; made on a GPU",
    )
