"""DoRA: the length of each row of a matrix learns apart from its direction (Liu et al. 2024, eq. 5)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import ftk
from ftk_peft import LoraVariant

if TYPE_CHECKING:
    from ftk.run import Run


@ftk.options
class DoraOptions:
    """Whether lengths learn apart."""

    use_dora: bool = ftk.option(False, help="DoRA: the length of each row of a matrix learns apart from its direction.")


@ftk.hookimpl
def ftk_lora_variants() -> Iterator[LoraVariant]:
    yield LoraVariant(
        "dora",
        config_target="ftk_dora:split",
        options=DoraOptions,
        switch="use_dora",
        summary="DoRA: lengths learn apart from directions",
    )


def split(config: Any, run: Run) -> Any:
    """peft's config with DoRA.

    Raises ModelError where experts that share a parameter are to learn: their rows have no lengths of their own there.
    """
    if config.target_parameters:
        raise ftk.ModelError(
            f"{run.plan.where('use_dora')}: experts that share a parameter cannot have it. Name the layers in "
            f"lora_target without {', '.join(config.target_parameters)}: {', '.join(sorted(config.target_modules))}"
        )
    config.use_dora = True
    return config
