"""``export_format: gguf``: one file for llama.cpp, Ollama and what builds on them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import ftk
from ftk_export import ExportFormat

FILE = "model.gguf"


@ftk.options
class GgufOptions:
    """What the weights are written as."""

    gguf_type: Literal["f16", "q8_0", "f32"] = ftk.option(
        "f16", help="f16: halves; q8_0: 8.5 bits, a scale for each 32 weights; f32: as exact as they come."
    )


@ftk.hookimpl
def ftk_export_formats() -> Iterator[ExportFormat]:
    yield ExportFormat(
        "gguf",
        target="ftk_gguf.writing:write",
        opens="ftk_gguf.reading:opened",
        options=GgufOptions,
        size=4.0,
        modelfile=FILE,
        summary="One file for llama.cpp and Ollama: Llama, Mistral, Qwen, Gemma and Phi families",
    )
