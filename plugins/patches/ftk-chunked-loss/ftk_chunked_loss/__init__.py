"""The cross-entropy over the vocabulary in chunks: exact, and in memory that does not grow with the batch."""

from __future__ import annotations

from collections.abc import Iterator

import ftk


@ftk.options
class ChunkedLossOptions:
    """How a language model's loss is computed while it trains."""

    chunked_loss: bool = ftk.option(
        True, help="Compute the loss over the vocabulary in chunks, wherever that is exact; false is the model's own."
    )
    chunked_loss_size: int | None = ftk.option(
        None, help="Tokens of a chunk; unset is what 32 million logits are, at least 256.", minimum=1
    )


@ftk.hookimpl
def ftk_model_patches() -> Iterator[ftk.ModelPatch]:
    yield ftk.ModelPatch(
        "chunked-loss",
        target="ftk_chunked_loss.patching:patch",
        options=ChunkedLossOptions,
        switch="chunked_loss",
        summary="The loss over a large vocabulary in little memory, exact",
    )
