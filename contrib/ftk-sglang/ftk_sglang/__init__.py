"""SGLang as an inference engine (Zheng et al. 2023, arXiv:2312.07104), over its HTTP interface."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import ftk
from ftk_data import TemplateOptions
from ftk_media import MediaOptions
from ftk_peft import NamedAdapterOptions


@ftk.options
class SglangOptions:
    """Which server answers. The names are LLaMA-Factory's, but for ``sglang_url``."""

    sglang_maxlen: int = ftk.option(4096, help="Tokens of a prompt and its answer together.", minimum=2)
    sglang_mem_fraction: float = ftk.option(
        0.7, help="Share of a GPU's memory for weights and keys.", above=0, maximum=1
    )
    sglang_tp_size: int = ftk.option(-1, help="GPUs that share the model; -1 is all that there are.", minimum=-1)
    sglang_config: Mapping[str, Any] | str | None = ftk.option(
        None, help="Further arguments of sglang.launch_server, as a mapping or JSON, over everything else."
    )
    sglang_lora_backend: Literal["triton", "flashinfer"] = ftk.option("triton", help="Kernels of LoRA adapters.")
    sglang_url: str | None = ftk.option(
        None, help="Address of a server that runs already with this model and these adapters; none is started then."
    )


@ftk.hookimpl
def ftk_inference_engines() -> Iterator[ftk.Engine]:
    yield ftk.Engine(
        "sglang",
        target="ftk_sglang.loading:build",
        loads_model=False,
        options=(SglangOptions, TemplateOptions, NamedAdapterOptions, MediaOptions),
        reads=(
            "infer_dtype", "trust_remote_code", "model_revision", "cache_dir", "hf_hub_token", "adapter_folder", "seed",
        ),
        excludes=("quantizer",),
        summary="A server of SGLang, over HTTP",
    )  # fmt: skip
