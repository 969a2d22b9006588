"""The default inference engine: transformers' own generation, on any device, with any adapter."""

from __future__ import annotations

from collections.abc import Iterator

import ftk
from ftk_data import TemplateOptions
from ftk_peft import NamedAdapterOptions


@ftk.hookimpl
def ftk_inference_engines() -> Iterator[ftk.Engine]:
    yield ftk.Engine(
        "huggingface",
        target="ftk_hf_engine.engine:build",
        default=True,
        options=(TemplateOptions, NamedAdapterOptions),
        reads=("use_cpu",),
        summary="transformers' own generation",
    )
