"""The optimizer. Tensors: O outputs (of all experts, where there are some), I inputs, B blocks."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from ftk_training import each_weight
from ftk_training.adamw import AdamW, decay
from ftk_training.each_weight import EachWeight, Part, Rule
from torch import nn
from transformers.pytorch_utils import Conv1D

if TYPE_CHECKING:
    from ftk.run import Run

HEADS = ("q_proj", "k_proj", "query", "key", "wq", "wk")
"""Last names of modules whose outputs belong together by head (Zhang et al. 2024: queries and keys)."""


@dataclass(frozen=True)
class AdamMini:
    """AdamW whose second moment is that of the mean square of a block (Zhang et al. 2024, section 2).

    rows: outputs of one block; 0 is all of them. transposed: the weight is (I, O) instead of (O, I).
    """

    rows: int
    transposed: bool = False

    def update(
        self, weight: torch.Tensor, gradient: torch.Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        beta1, beta2 = group["betas"]
        squares_B = self._blocks(gradient.float().square()).mean(dim=1)
        if not state:
            state["step"] = 0
            state["exp_avg"] = torch.zeros_like(gradient)
            state["exp_avg_sq"] = torch.zeros_like(squares_B)
        state["step"] += 1
        state["exp_avg"].lerp_(gradient, 1 - beta1)
        state["exp_avg_sq"].mul_(beta2).add_(squares_B, alpha=1 - beta2)
        denominator_B = (state["exp_avg_sq"].sqrt() / math.sqrt(1 - beta2 ** state["step"])).add_(group["eps"])
        decay(weight, group)
        step = self._blocks(state["exp_avg"].float()) / denominator_B[:, None]
        step = self._weight_like(step, weight)
        weight.add_(step.to(weight.dtype), alpha=-group["lr"] / (1 - beta1 ** state["step"]))

    def _blocks(self, values: torch.Tensor) -> torch.Tensor:
        """(B, values of a block)."""
        values_OI = (values.mT if self.transposed else values).reshape(-1, values.shape[-2 if self.transposed else -1])
        return values_OI.reshape(len(values_OI) // self.rows if self.rows else 1, -1)

    def _weight_like(self, blocks: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return blocks.reshape(weight.mT.shape).mT if self.transposed else blocks.reshape(weight.shape)


def build(model: nn.Module, run: Run) -> EachWeight:
    """Adam-mini for all that learns, in the blocks of :func:`rule_for`."""
    parts: dict[Rule, list[nn.Parameter]] = defaultdict(list)
    seen = set()
    for name, module in model.named_modules():
        parent = model.get_submodule(name.rpartition(".")[0])
        for part, weight in module.named_parameters(recurse=False):
            if weight.requires_grad and weight not in seen:
                seen.add(weight)
                parts[rule_for(f"{name}.{part}", weight, module, parent)].append(weight)
    return each_weight.make(run, model, [Part(rule, weights) for rule, weights in parts.items()])


def rule_for(name: str, weight: nn.Parameter, module: nn.Module, parent: nn.Module) -> Rule:
    """The blocks of a weight: heads of queries and keys, else each output's row (a neuron's, a token's); a norm is one
    block. Biases have a second moment for each value.
    """
    if name.endswith("bias"):
        return AdamW()
    if weight.ndim < 2:
        return AdamMini(rows=0)
    last = name.split(".")[-2]
    size = getattr(parent, "head_dim", None) if last in HEADS else None
    outputs = weight.shape[-1] if isinstance(module, Conv1D) else weight.shape[-2]
    rows = size if isinstance(size, int) and outputs % size == 0 else 1
    return AdamMini(rows=rows, transposed=isinstance(module, Conv1D))
