"""Whether a run may compute logits only where somebody learns, which saves the rest of the vocabulary matrix."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from ftk_training.streams import is_stream

if TYPE_CHECKING:
    from ftk_training.trainer import ExactTrainer


def can_keep_logits(trainer: ExactTrainer) -> bool:
    """Whether the model can compute its logits only where somebody learns (``Collator.kept_logits``).

    It can when its loss is transformers' for causal models, which takes shifted labels. A model that ignored them
    would fail on the shapes, not go on with a wrong loss.
    """
    args, model = trainer.args, trainer.accelerator.unwrap_model(trainer.model)
    if trainer.loss is not None or trainer.label_smoother is not None or not trainer.model_accepts_loss_kwargs:
        return False
    if not trainer._loss_shifts_labels:
        return False
    if any(not hasattr(rows, "__len__") and not is_stream(rows) for rows in _row_sets(trainer)):
        return False
    if args.n_gpu > 1 or args.torch_compile or args.parallelism_config:
        return False
    peft_configs = getattr(model, "peft_config", None) or {}
    if any(getattr(config, "is_prompt_learning", False) for config in peft_configs.values()):
        return False  # tokens that the collator does not know are put in front
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "logits_to_keep" in inspect.signature(base.forward).parameters


def _row_sets(trainer: ExactTrainer) -> list[Any]:
    evaluation = trainer.eval_dataset
    sets = [trainer.train_dataset, *(evaluation.values() if isinstance(evaluation, dict) else [evaluation])]
    return [rows for rows in sets if rows is not None]
