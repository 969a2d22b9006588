"""AQLM's layer off CUDA: plain products with dequantised weights, so that a LoRA can learn beside it.

aqlm has quick kernels for CUDA. Its own way on CPUs answers but cannot train: the backward pass fails inside its
TorchScript, and what the forward pass returns cannot be added to in place, as peft does.

Shapes: C code books, S entries in each, (o, i) weights in an entry, G_out x G_in groups; B any, I and O features.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from aqlm import QuantizedLinear

if TYPE_CHECKING:
    from ftk.run import Run

SPARED = "linear_weights_not_to_quantize"


def adjust(run: Run, stored: Mapping[str, Any]) -> dict[str, Any]:
    """The stored config with names of layers in place of names of weights; layers compute as here from now on.

    Files written for transformers 4 name what they spare as ``lm_head.weight``; transformers 5 compares with layers.
    """
    if QuantizedLinear.forward is not forward:
        QuantizedLinear.cuda_forward = QuantizedLinear.forward
        QuantizedLinear.forward = forward
    spared = stored.get(SPARED) or ()
    return {**stored, SPARED: [name.removesuffix(".weight") for name in spared]}


def forward(layer: Any, x_BI: torch.Tensor) -> torch.Tensor:
    """``x W^T + b`` (B, O): aqlm's kernels on CUDA, else a product with the weight."""
    if x_BI.is_cuda:
        return layer.cuda_forward(x_BI)
    return Product.apply(x_BI, layer.codes, layer.codebooks, layer.scales, layer.bias)


def weight(codes: torch.Tensor, codebooks: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """W (O, I): for each group the sum of the entries that its codes name, times the scale of its row of groups.

    codes (G_out, G_in, C), signed in the files; codebooks (C, S, o, i); scales (G_out, 1, 1, 1).
    """
    entries = codes.long() % codebooks.shape[1]
    groups = sum(codebooks[number][entries[..., number]] for number in range(codebooks.shape[0]))
    return (groups * scales).transpose(1, 2).flatten(2, 3).flatten(0, 1)


class Product(torch.autograd.Function):
    """The weight is made again for the backward pass instead of being kept."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, codes: Any, codebooks: Any, scales: Any, bias: Any) -> torch.Tensor:
        ctx.save_for_backward(codes, codebooks, scales)
        return torch.nn.functional.linear(x.to(codebooks.dtype), weight(codes, codebooks, scales), bias)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None]:
        return gradient.to(ctx.saved_tensors[1].dtype) @ weight(*ctx.saved_tensors), None, None, None, None
