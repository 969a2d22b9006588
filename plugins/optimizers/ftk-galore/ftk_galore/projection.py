"""Projection of gradients onto their leading singular vectors.

Tensors: E experts (matrices of one shape, or none), M rows, N columns, R rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

SIDES = {
    # projection type → (sides for M >= N, sides for M < N)
    "std": (("right",), ("left",)),
    "reverse_std": (("left",), ("right",)),
    "left": (("left",), ("left",)),
    "right": (("right",), ("right",)),
    "full": (("left", "right"), ("left", "right")),
}


@dataclass(frozen=True)
class Projection:
    """P^T G, G Q or P^T G Q with the leading singular vectors of a gradient (Zhao et al. 2024, section 3).

    They are those of the gradient at steps 0, ``interval``, 2 ``interval`` ..., and stay in the state until the next.
    """

    rank: int
    interval: int
    kind: str = "std"

    def down(self, gradient_EMN: torch.Tensor, state: dict[str, Any]) -> torch.Tensor:
        """The projected gradient, in float32: (E, R, N), (E, M, R) or (E, R, R)."""
        gradient_EMN = gradient_EMN.float()
        if state.get("step", 0) % self.interval == 0:
            self._refresh(gradient_EMN, state)
        small = gradient_EMN
        if "left" in state:
            small = state["left"].mT @ small
        if "right" in state:
            small = small @ state["right"].mT
        return small

    def up(self, small: torch.Tensor, state: dict[str, Any]) -> torch.Tensor:
        """What was projected, or what was made of it, in the shape of the gradient."""
        if "left" in state:
            small = state["left"] @ small
        if "right" in state:
            small = small @ state["right"]
        return small

    def _refresh(self, gradient_EMN: torch.Tensor, state: dict[str, Any]) -> None:
        left_EMK, _, right_EKN = torch.linalg.svd(gradient_EMN, full_matrices=False)
        rows, columns = gradient_EMN.shape[-2:]
        sides = SIDES[self.kind][rows < columns]
        if "left" in sides:
            state["left"] = left_EMK[..., : self.rank].clone()
        if "right" in sides:
            state["right"] = right_EKN[..., : self.rank, :].clone()
