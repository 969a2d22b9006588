"""When a batch is one row instead of a padded rectangle; see ``Collator.flat``."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from ftk import ConfigError

from ftk_training.checkpoints import configs_of

if TYPE_CHECKING:
    from ftk_training.trainer import ExactTrainer


def is_flat(trainer: ExactTrainer) -> bool:
    """Whether a batch is one row. Packed ones must be for flash attention, or their documents see each other.

    transformers' ``_is_packed_sequence`` looks for documents in a batch of one row only, without a word of warning.
    Raises ConfigError for what cannot be done with it.
    """
    asked = trainer.options.padding_free
    if not asked and not (_attends_by_flash(trainer.model) and are_packed(trainer.train_dataset, trainer.eval_dataset)):
        return False
    where = trainer.run.plan.where("padding_free") if asked else f"{trainer.run.plan.config}: packing"
    if trainer.args.n_gpu > 1:
        raise ConfigError(
            f"{where}: one row cannot be split over the GPUs of one process. Start one for each GPU (torchrun), or "
            "show it one (CUDA_VISIBLE_DEVICES=0)"
        )
    model = trainer.accelerator.unwrap_model(trainer.model)
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    if "position_ids" not in inspect.signature(model.forward).parameters:
        raise ConfigError(
            f"{where}: {type(model).__name__} takes no position_ids, by which rows are kept apart. Take it out"
        )
    return True


def _attends_by_flash(model: Any) -> bool:
    return any("flash" in str(getattr(part, "_attn_implementation", "")) for part in configs_of(model))


def are_packed(*row_sets: Any) -> bool:
    """Whether rows of any of the sets, some of which may be None or several by name, hold several documents."""
    sets = [one for rows in row_sets for one in (rows.values() if isinstance(rows, dict) else [rows])]
    return any(getattr(rows, "packed", False) for rows in sets)
