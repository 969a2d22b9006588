"""The loss of rows whose tokens weigh different amounts.

Tensors: B rows, T tokens, K kept positions (see the collator), V words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from ftk import ConfigError
from torch.nn import functional

if TYPE_CHECKING:
    from torch import nn

    from ftk_training.trainer import Batch, ExactTrainer


def weighs_losses(model: nn.Module) -> bool:
    """Whether the model's ``forward`` takes ``loss_weights`` and ``label_smoothing`` beside the labels, and returns
    ``num_right`` where no gradient is wanted. The patch of a loss says so with an attribute of that name.
    """
    return bool(getattr(getattr(model, "module", model), "weighs_losses", False))


def own_loss(
    trainer: ExactTrainer, model: nn.Module, inputs: Batch, num_items: Any, **more: Any
) -> tuple[torch.Tensor, Any]:
    """The loss that such a model computes itself, and its outputs. more: further arguments of its ``forward``."""
    if num_items is not None:
        more["num_items_in_batch"] = num_items
    outputs = model(**inputs, **more)
    loss = outputs["loss"]
    if num_items is not None and trainer.args.average_tokens_across_devices:
        loss = loss * trainer.accelerator.num_processes  # which averages gradients over processes
    return loss, outputs


def weighted_loss(trainer: ExactTrainer, model: nn.Module, inputs: Batch, num_items: Any) -> tuple[torch.Tensor, Any]:
    """The sum of weight times cross-entropy over trained tokens, divided by their number, and the model's outputs.

    The number is ``num_items``, the whole step's, or this batch's own without it, whatever the tokens weigh: an answer
    of weight 0.5 pulls half as hard as with weight 1, and its neighbours pull as before.
    inputs: a batch with ``loss_weights`` (B, T), or (B, K) beside ``shift_labels``, or without when all weigh 1; it is
        used up.
    Raises ConfigError with label smoothing, which transformers computes in its own way.
    """
    if trainer.label_smoother is not None:
        raise ConfigError("label_smoothing_factor: cannot be used with rows that carry weights. Set it to 0")
    if weighs_losses(model):
        return own_loss(trainer, model, inputs, num_items)
    weights, labels, shifted = (inputs.pop(name, None) for name in ("loss_weights", "labels", "shift_labels"))
    outputs = model(**inputs)
    logits_BTV = outputs["logits"]
    if shifted is None:
        weights, shifted = None if weights is None else weights[:, 1:], labels[:, 1:]
        logits_BTV = logits_BTV[:, -labels.shape[1] : -1]  # prompt tuning puts tokens in front
    surprise = functional.cross_entropy(logits_BTV.float().flatten(0, 1), shifted.flatten(), reduction="none")
    total = (surprise if weights is None else surprise * weights.flatten()).sum()
    loss = total / ((shifted != -100).sum() if num_items is None else num_items)
    if (balance := outputs.get("aux_loss")) is not None:  # a mixture of experts adds it to a loss of its own
        config = trainer.accelerator.unwrap_model(trainer.model).config.get_text_config()
        loss = loss + getattr(config, "router_aux_loss_coef", 0.0) * balance
    if num_items is not None and trainer.args.average_tokens_across_devices:
        loss = loss * trainer.accelerator.num_processes  # which averages gradients over processes
    return loss, outputs
