"""The default model loader: whatever transformers can load, from a folder or from the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import ftk

GONE = (
    ftk.Replaced("use_fast_tokenizer", note="has no effect any more: transformers 5 has no slow tokenizers"),
    ftk.Replaced("low_cpu_mem_usage", note="has no effect any more: transformers 5 always loads that way"),
)


@ftk.options(replaced=GONE)
class HfOptions:
    """What is loaded and in which form."""

    model_revision: str = ftk.option("main", help="Branch, tag or commit of a model on the hub.")
    cache_dir: str | None = ftk.option(None, help="Where downloads are kept; unset is the hub library's own folder.")
    hf_hub_token: str | None = ftk.option(
        None, help="Access token for gated and private models; unset takes HF_TOKEN or the stored login.", secret=True
    )
    trust_remote_code: bool = ftk.option(
        False, help="Run the Python code that a model brings along. Read it first: it can do whatever you can."
    )
    split_special_tokens: bool = ftk.option(
        False, help="Read what looks like a control token in the data as text, so that no row can forge a turn."
    )
    flash_attn: Literal["auto", "disabled", "sdpa", "fa2", "fa3"] = ftk.option(
        "auto", help="Attention: auto is transformers' choice, disabled is plain, fa2 and fa3 need their packages."
    )
    infer_dtype: Literal["auto", "float16", "bfloat16", "float32"] = ftk.option(
        "auto", help="Type of the weights when the model only answers; auto is the model's own."
    )
    device_map: str | dict[str, int | str] | None = ftk.option(
        None,
        help="Where the parts of the model go: auto, balanced, sequential, cpu, or module: device. Unset, training "
        "places the model itself, and a model that only answers goes over all accelerators, memory and disk.",
    )
    offload_folder: str = ftk.option(
        "offload", help="Where weights go that fit neither the accelerator nor memory when the model only answers."
    )
    train_from_scratch: bool = ftk.option(
        False,
        help="Start from random weights: only config.json and the tokenizer are read.",
        excludes=("quantizer",),
    )


READABLE = (
    "auto-round", "bitnet", "compressed-tensors", "fbgemm_fp8", "fp_quant", "higgs", "nvfp4", "quark", "sinq", "spqr",
    "vptq",
)  # fmt: skip
"""``quant_method`` of files that transformers reads with its own code or a package of theirs, and for which there is no
plugin."""


@ftk.hookimpl
def ftk_quantizers() -> Iterator[ftk.Quantizer]:
    yield ftk.Quantizer(
        "stored",
        stored_target="ftk_hf.quantised:as_stored",
        methods=READABLE,
        excludes=("adapter_name_or_path>1",),
        summary="Files in other formats of few bits, as transformers reads them",
    )


@ftk.hookimpl
def ftk_model_loaders() -> Iterator[ftk.ModelLoader]:
    yield ftk.ModelLoader(
        "hf",
        target="ftk_hf.loading",
        default=True,
        options=HfOptions,
        reads=("bf16", "fp16", "pure_bf16", "use_cpu"),
        summary="Whatever transformers can load, from a folder or the Hugging Face hub",
    )
