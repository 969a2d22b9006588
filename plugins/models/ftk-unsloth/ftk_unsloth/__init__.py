"""Unsloth: a model loader, and LoRA in its fused kernels."""

from __future__ import annotations

from collections.abc import Iterator

import ftk
from ftk_peft import LoraVariant


@ftk.options
class UnslothOptions:
    """Whether Unsloth loads and speeds up the model."""

    use_unsloth: bool = ftk.option(False, help="Load the model with Unsloth and train LoRA in its kernels.")


REFUSED = (
    "adapter:oft", "adapter:freeze", "quantizer:hqq", "quantizer:gptq", "quantizer:awq", "quantizer:aqlm",
    "quantizer:eetq", "quantizer:torchao", "rope_scaling", "shift_attn", "mixture_of_depths", "enable_liger_kernel",
    "train_from_scratch",
)  # fmt: skip


@ftk.hookimpl
def ftk_model_loaders() -> Iterator[ftk.ModelLoader]:
    yield ftk.ModelLoader(
        "unsloth",
        target="ftk_unsloth.loading",
        options=UnslothOptions,
        switch="use_unsloth",
        reads=(
            "trust_remote_code", "model_revision", "hf_hub_token", "cache_dir", "cutoff_len", "quantization_bit",
            "bf16", "fp16", "pure_bf16",
        ),
        requires=("unsloth",),
        extra="backend",
        excludes=REFUSED,
        summary="Models with Unsloth's kernels",
    )  # fmt: skip


@ftk.hookimpl
def ftk_lora_variants() -> Iterator[LoraVariant]:
    yield LoraVariant(
        "unsloth",
        target="ftk_unsloth.loading:speed_up",
        options=UnslothOptions,
        switch="use_unsloth",
        requires=("unsloth",),
        extra="backend",
        summary="LoRA in Unsloth's kernels",
    )
