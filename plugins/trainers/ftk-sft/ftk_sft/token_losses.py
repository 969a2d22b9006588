"""A loss of tokens, summed over a batch: padded, packed or flat, weighted, with logits only where somebody learns.

Tensors: B rows, T tokens, V words, N trained tokens, C of them at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from ftk import ConfigError
from ftk_training.collator import IGNORED
from ftk_training.logprobs import Targets, model_inputs, target_logits, targets_of
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from ftk.run import Run
    from ftk_training.reference import Reference
    from ftk_training.trainer import ExactTrainer
    from torch import nn

    from ftk_sft import SftLoss

Batch = Mapping[str, torch.Tensor]
LOGITS_AT_ONCE = 2**25
"""So many logits become losses at a time; what that makes beside them is thrown away and made again on the way back."""


class TokenLosses:
    """``loss(model, batch) -> (sum over the batch's trained tokens, {metric: sum})`` with the formula of a plugin.

    Metrics: ``cross_entropy``, so that runs with different losses can be compared, what the formula reports, and in
    evaluations ``accuracy``, the share of tokens that are the most likely ones.
    """

    def __init__(self, run: Run, spec: SftLoss) -> None:
        self.formula = spec.load()(run)
        self.switch, self.needs_reference = str(spec.switch), spec.reference
        self.reference: Reference | None = None

    def begin(self, trainer: ExactTrainer) -> None:
        """The model still has the weights that training begins with: those of the reference.

        Raises ConfigError where one process drives several GPUs: what is cut down to trained tokens cannot be split.
        """
        if trainer.args.n_gpu > 1:
            raise ConfigError(
                f"{trainer.run.plan.where(self.switch)}: one process drives {trainer.args.n_gpu} GPUs, which this loss "
                "cannot. Start one process for each (torchrun), or show it one (CUDA_VISIBLE_DEVICES=0)"
            )
        if self.needs_reference:
            from ftk_training.reference import reference_of

            self.reference = reference_of(trainer)

    def __call__(self, model: nn.Module, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        inputs, targets = model_inputs(batch), targets_of(batch)
        with balance_of(model) as balances:
            logits_NV = target_logits(model, inputs, targets)
        columns = [logits_NV, targets.tokens_N, weights_of(batch, targets)]
        if self.reference is not None:
            with self.reference.model(model) as reference:
                columns.append(target_logits(reference, inputs, targets))
        size = max(1, LOGITS_AT_ONCE // logits_NV.shape[-1])
        total, sums = logits_NV.new_zeros((), dtype=torch.float32), dict[str, torch.Tensor]()
        for parts in zip(*(one.split(size) for one in columns), strict=True):
            if logits_NV.requires_grad:
                part, found = checkpoint(self.summed, *parts, use_reentrant=False, preserve_rng_state=False)
            else:
                part, found = self.summed(*parts)
            total = total + part
            sums = {name: sums.get(name, 0) + value for name, value in found.items()}
        return total + sum(balances) * len(targets), sums

    def summed(
        self, logits_CV: torch.Tensor, labels_C: torch.Tensor, weights_C: torch.Tensor, *reference: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The sums over some tokens."""
        wide_CV = logits_CV if logits_CV.dtype == torch.float64 else logits_CV.float()
        losses_C, found = self.formula(wide_CV, labels_C, *(one.to(wide_CV.dtype) for one in reference))
        with torch.no_grad():
            sums = {name: values_C.detach().sum() for name, values_C in found.items()}
            sums["cross_entropy"] = functional.cross_entropy(wide_CV, labels_C, reduction="sum")
            if not losses_C.requires_grad:
                sums["accuracy"] = (wide_CV.argmax(-1) == labels_C).sum()
        return (losses_C * weights_C).sum(), sums


def count_tokens(batch: Batch) -> torch.Tensor:
    """How many tokens of a batch are trained."""
    return (batch["labels"][:, 1:] != IGNORED).sum()


def weights_of(batch: Batch, targets: Targets) -> torch.Tensor:
    """(N,) what the loss of each target is multiplied with."""
    if "loss_weights" not in batch:
        return torch.ones_like(targets.tokens_N, dtype=torch.float32)
    return batch["loss_weights"][targets.rows_N, targets.positions_N + 1]


@contextmanager
def balance_of(model: nn.Module) -> Iterator[list[torch.Tensor]]:
    """What a mixture of experts adds to its mean loss so that all of them are used; nothing for other models."""
    found: list[torch.Tensor] = []

    def note(module: Any, _: Any, outputs: Any) -> None:
        loss = outputs.get("aux_loss") if isinstance(outputs, dict) else None
        if loss is not None:
            config = getattr(module, "module", module).config.get_text_config()
            found.append(loss * getattr(config, "router_aux_loss_coef", 0.0))

    handle = model.register_forward_hook(note)
    try:
        yield found
    finally:
        handle.remove()
