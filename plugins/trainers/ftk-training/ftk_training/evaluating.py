"""An evaluation: exact means over everything that is evaluated.

Tensors: B rows, T tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from ftk_training.collator import Collator
from ftk_training.counting import num_right, num_trained
from ftk_training.progress import means, split
from ftk_training.quick_imports import quick_imports

with quick_imports():
    from transformers.trainer_utils import EvalLoopOutput

if TYPE_CHECKING:
    from torch import nn

    from ftk_training.trainer import Batch, ExactTrainer


@torch.no_grad()
def evaluate(trainer: ExactTrainer, dataloader: Any, prefix: str) -> EvalLoopOutput:
    """The metrics of all batches, each name behind ``prefix``; see :meth:`ExactTrainer.evaluation_loop`."""
    random_state = torch.get_rng_state()
    model = trainer._wrap_model(trainer.model, training=False)
    if not trainer.is_in_train and trainer.is_deepspeed_enabled:
        model = trainer.accelerator.prepare(model)
    if not trainer.is_in_train and (trainer.args.bf16_full_eval or trainer.args.fp16_full_eval):
        dtype = torch.bfloat16 if trainer.args.bf16_full_eval else torch.float16
        model = model.to(dtype=dtype, device=trainer.args.device)
    model.eval()
    trainer.show_result()
    sums: dict[str, torch.Tensor] = {name: torch.zeros((), dtype=torch.float64) for name in ("rows", "items", "loss")}
    if hasattr(trainer.loop, "evaluation_begins"):
        trainer.loop.evaluation_begins(dataloader)
    for inputs in dataloader:
        for name, value in _sums(trainer, model, trainer._prepare_inputs(inputs)).items():
            sums[name] = sums.get(name, 0) + torch.as_tensor(value, dtype=torch.float64).cpu()
    torch.set_rng_state(random_state)
    made = _summed_up(trainer, sums, prefix)
    if trainer.generating is not None:
        made.metrics.update(trainer.generating.evaluate(prefix))
    return made


def _sums(trainer: ExactTrainer, model: nn.Module, inputs: Batch) -> dict[str, Any]:
    """Sums over the items of a batch."""
    more: Mapping[str, Any] = {}
    if trainer.loop is not None:
        inputs, more = trainer.loop.evaluation(inputs)
    items = trainer.count(inputs) if trainer.count else num_trained(inputs)
    flat = trainer.data_collator.flat if isinstance(trainer.data_collator, Collator) else False
    rows = int((inputs["position_ids"] == 0).sum()) if flat else len(next(iter(inputs.values())))
    if not items:
        return {"rows": rows, "items": 0, **split(more)}
    wants_outputs = trainer.options.compute_accuracy or trainer.loss is not None
    with trainer.compute_loss_context_manager():
        loss = trainer.compute_loss(model, dict(inputs), return_outputs=wants_outputs)
    loss, outputs = loss if wants_outputs else (loss, {})
    sums: dict[str, Any] = {"rows": rows, "items": items, "loss": loss.double() * items}
    if trainer.loss is not None:
        sums |= split({**outputs, **more})
    elif trainer.options.compute_accuracy:
        counted = "num_right" in outputs
        sums["accuracy"] = outputs["num_right"] if counted else num_right(outputs["logits"], inputs)
    return sums


def _summed_up(trainer: ExactTrainer, sums: dict[str, torch.Tensor], prefix: str) -> EvalLoopOutput:
    if trainer.args.world_size > 1:
        names = sorted(sums)
        gathered = trainer.accelerator.gather(
            torch.stack([sums[name].double() for name in names]).to(trainer.args.device)[None]
        )
        sums = dict(zip(names, gathered.sum(dim=0).cpu(), strict=True))
    num_rows, items = int(sums.pop("rows")), float(sums.pop("items"))
    metrics = {f"{prefix}_{name}": value for name, value in means(sums, items).items()}
    if trainer.loss is None:
        metrics[f"{prefix}_perplexity"] = math.exp(min(metrics[f"{prefix}_loss"], 700))
    return EvalLoopOutput(predictions=None, label_ids=None, metrics=metrics, num_samples=num_rows)
