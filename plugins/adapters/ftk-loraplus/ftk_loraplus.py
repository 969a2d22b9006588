"""LoRA+: the B matrices learn faster than the A matrices (Hayou et al. 2024, section 4: eta_B = ratio * eta_A)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import ftk
from ftk_peft import LoraVariant

if TYPE_CHECKING:
    from ftk.run import Run


@ftk.options
class LoraPlusOptions:
    """How fast what learns."""

    loraplus_lr_ratio: float | None = ftk.option(
        None, help="LoRA+: learning rate of the B matrices, in multiples of learning_rate; 16 is usual.", above=0
    )
    loraplus_lr_embedding: float = ftk.option(
        1e-6, help="LoRA+: learning rate of the terms beside embeddings.", minimum=0
    )


@ftk.hookimpl
def ftk_lora_variants() -> Iterator[LoraVariant]:
    yield LoraVariant(
        "loraplus",
        target="ftk_loraplus:hurry",
        options=LoraPlusOptions,
        switch="loraplus_lr_ratio",
        reads=("learning_rate",),
        summary="LoRA+: the B matrices learn faster",
    )


def hurry(model: Any, run: Run, new: bool) -> Any:
    """The model as it is, after the run has been told its learning rates; the optimizer can be any.

    Faster are B matrices and vectors that learn (norms, biases, DoRA's lengths), as the authors' code has it. Both
    matrices beside embeddings have a rate of their own, all else has ``learning_rate``.
    """
    from ftk_training.learning import set_rates

    options, usual = run.options(LoraPlusOptions), run.value("learning_rate")

    def rates(name: str, parameter: Any) -> float | None:
        if ".lora_embedding_" in name:
            return options.loraplus_lr_embedding
        fast = ".lora_B." in name or parameter.ndim == 1
        return float(usual * options.loraplus_lr_ratio) if fast else None

    set_rates(run, rates)
    return model
