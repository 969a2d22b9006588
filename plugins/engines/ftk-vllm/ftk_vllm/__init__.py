"""vLLM as an inference engine (Kwon et al. 2023, arXiv:2309.06180), with the tokens and adapters of training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import ftk
from ftk_data import TemplateOptions
from ftk_media import MediaOptions
from ftk_peft import NamedAdapterOptions


@ftk.options
class VllmOptions:
    """How vLLM is started. The names are LLaMA-Factory's."""

    vllm_maxlen: int = ftk.option(
        4096, help="Tokens of a prompt and its answer together; at most what the model reads.", minimum=2
    )
    vllm_gpu_util: float = ftk.option(
        0.7, help="Share of a GPU's memory that vLLM takes for weights and keys.", above=0, maximum=1
    )
    vllm_enforce_eager: bool = ftk.option(False, help="No CUDA graphs: starts sooner, answers more slowly.")
    vllm_max_lora_rank: int = ftk.option(32, help="Largest rank of the adapters; unset follows them.", minimum=1)
    vllm_config: Mapping[str, Any] | str | None = ftk.option(
        None, help="Further arguments of vLLM's AsyncEngineArgs, as a mapping or JSON, over everything else."
    )


@ftk.hookimpl
def ftk_inference_engines() -> Iterator[ftk.Engine]:
    yield ftk.Engine(
        "vllm",
        target="ftk_vllm.loading:build",
        loads_model=False,
        options=(VllmOptions, TemplateOptions, NamedAdapterOptions, MediaOptions),
        reads=(
            "infer_dtype", "trust_remote_code", "model_revision", "cache_dir", "hf_hub_token", "adapter_folder", "seed",
            "lora_rank",
        ),
        requires=("vllm",),
        extra="backend",
        excludes=("quantizer",),
        summary="vLLM: many answers at once on GPUs",
    )  # fmt: skip
