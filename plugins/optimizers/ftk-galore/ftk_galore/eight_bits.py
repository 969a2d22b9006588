"""Adam's moments in 8 bits: block-wise dynamic quantisation (Dettmers et al. 2022, sections 2.1 and 2.2).

Written in plain PyTorch, so that it is the same on every device and its state is ordinary tensors.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from ftk_training.adamw import Plain
from torch.nn import functional

BLOCK = 256
"""Values that share a scale."""
SMALLEST = 4096
"""Weights with fewer values keep their moments as they are."""


@cache
def dynamic_map(signed: bool) -> torch.Tensor:
    """The 256 values that a byte can stand for, ascending, from -1 or 0 to 1.

    Seven decades down from 1, each with twice as many values as the next smaller one, and 0.
    """
    values = [0.0, 1.0]
    for decade in range(7):
        edges = torch.linspace(0.1, 1.0, 2 ** (decade + (not signed)) + 1, dtype=torch.float64)
        middles = ((edges[:-1] + edges[1:]) / 2 * 10.0 ** (decade - 6)).tolist()
        values += middles + ([-value for value in middles] if signed else [])
    return torch.tensor(sorted(values), dtype=torch.float32)


def quantized(values: torch.Tensor, signed: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """(bytes, one for each value in order; the largest absolute value of each block of 256)."""
    flat = values.float().flatten()
    blocks = functional.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
    scales = blocks.abs().amax(dim=1)
    known = dynamic_map(signed).to(values.device)
    nearest = torch.bucketize(blocks / scales.clamp(min=1e-38)[:, None], (known[:-1] + known[1:]) / 2)
    return nearest.to(torch.uint8).flatten()[: len(flat)].clone(), scales


def dequantized(codes: torch.Tensor, scales: torch.Tensor, signed: bool, shape: torch.Size) -> torch.Tensor:
    """The float32 values that bytes and scales stand for."""
    values = dynamic_map(signed).to(codes.device)[codes.int()]
    blocks = functional.pad(values, (0, -len(values) % BLOCK)).view(-1, BLOCK) * scales[:, None]
    return blocks.flatten()[: len(codes)].view(shape)


@dataclass(frozen=True)
class EightBits:
    """Two bytes for each value, and two scales for 256 of them."""

    plain: Plain = field(default_factory=Plain)

    def read(self, state: dict[str, Any], like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if like.numel() < SMALLEST:
            return self.plain.read(state, like)
        if "first" not in state:
            zeros = torch.zeros_like(like, dtype=torch.float32)
            return zeros, zeros.clone()
        return (
            dequantized(state["first"], state["first_scales"], True, like.shape),
            dequantized(state["second"], state["second_scales"], False, like.shape),
        )

    def write(self, state: dict[str, Any], first: torch.Tensor, second: torch.Tensor) -> None:
        if first.numel() < SMALLEST:
            return
        state["first"], state["first_scales"] = quantized(first, signed=True)
        state["second"], state["second_scales"] = quantized(second, signed=False)
