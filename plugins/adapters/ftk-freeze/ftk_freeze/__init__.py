"""Freeze: some layers of a model learn, the others stay as they are; the result is a whole model."""

from __future__ import annotations

from collections.abc import Iterator

import ftk


@ftk.options
class FreezeOptions:
    """Which layers and modules learn."""

    freeze_trainable_layers: int = ftk.option(
        2, help="How many layers learn: 2 the last two, -2 the first two, 0 none of them."
    )
    freeze_trainable_modules: tuple[str, ...] = ftk.option(
        ("all",), help="What of those layers learns: all, or names inside of a layer such as self_attn,mlp or q_proj."
    )
    freeze_extra_modules: tuple[str, ...] = ftk.option(
        (), help="Modules outside of the layers that learn, too, for instance embed_tokens,norm,lm_head."
    )


@ftk.hookimpl
def ftk_adapters() -> Iterator[ftk.Adapter]:
    yield ftk.Adapter(
        "freeze",
        target="ftk_freeze.freezing:apply",
        saves="model",
        options=FreezeOptions,
        reads=("bf16", "fp16", "pure_bf16"),
        excludes=("adapter_name_or_path", "quantizer"),
        summary="Some layers learn, the others stay; the result is a whole model",
    )
