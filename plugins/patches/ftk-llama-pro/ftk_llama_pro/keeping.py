"""Which blocks of an expanded model may learn."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from ftk import ModelError
from ftk_training.learning import keep, value
from ftk_training.stack import stack_of

from ftk_llama_pro.blocks import NEW

if TYPE_CHECKING:
    from ftk.run import Run

log = logging.getLogger("ftk.llama_pro")
LAYERS = "freeze_trainable_layers"


def keep_old_blocks(model: Any, run: Run) -> Any:
    """The model as it is; adapters are told to leave all but its new blocks alone.

    Raises ModelError when the model has no new blocks, or when ``freeze_trainable_layers`` says another number.
    """
    if run.plan.one("trainer") is None:
        return model
    name, stack = stack_of(model)
    new = getattr(model.config, NEW, None) or _counted_off(len(stack), run)
    if LAYERS in run.plan.values and run.value(LAYERS) != len(new):
        raise ModelError(f"{run.plan.where(LAYERS)}: the model has {len(new)} new blocks. Set it to {len(new)}")
    keep(run, [f"{name}.{number}" for number in range(len(stack)) if number not in new], "use_llama_pro: true")
    log.info("of %d blocks only the new ones learn: %s", len(stack), ", ".join(map(str, new)))
    return model


def _counted_off(count: int, run: Run) -> list[int]:
    """Where the new blocks of a model are that does not say so: the last ones of so many equal groups."""
    groups = value(run, LAYERS) if LAYERS in run.plan.given else None
    if not groups:
        raise ModelError(
            f"{run.plan.where('use_llama_pro')}: the model does not say which of its blocks are new. Expand it with "
            f"ftk llama-pro, or set {LAYERS} to their number"
        )
    if groups < 0 or count % groups:
        raise ModelError(f"{run.plan.where(LAYERS)}: {count} blocks cannot be split into as many groups")
    return list(range(count // groups - 1, count, count // groups))
