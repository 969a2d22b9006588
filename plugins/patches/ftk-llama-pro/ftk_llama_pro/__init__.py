"""LLaMA Pro: a command that puts new blocks into a model, and a patch that lets only these learn."""

from __future__ import annotations

from collections.abc import Iterator

import ftk


@ftk.options
class LlamaProOptions:
    """Which blocks learn."""

    use_llama_pro: bool = ftk.option(
        False, help="Let only the new blocks of a model learn that ftk llama-pro has expanded."
    )


@ftk.hookimpl
def ftk_model_patches() -> Iterator[ftk.ModelPatch]:
    yield ftk.ModelPatch(
        "llama-pro",
        target="ftk_llama_pro.keeping:keep_old_blocks",
        options=LlamaProOptions,
        switch="use_llama_pro",
        reads=("freeze_trainable_layers",),
        excludes=("adapter:full",),
        summary="Only the new blocks of an expanded model learn",
    )


@ftk.hookimpl
def ftk_commands() -> Iterator[ftk.Command]:
    yield ftk.Command(
        "llama-pro",
        target="ftk_llama_pro.command:llama_pro",
        uses=("model_loader",),
        summary="Put new blocks into a model that change nothing yet.",
    )
