"""The optimizer. Tensors: E experts (matrices of one shape, or none), M rows, N columns, R rank."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from ftk_training import each_weight
from ftk_training.adamw import AdamW, Plain, adam, decay
from ftk_training.each_weight import UNSAVED, EachWeight, Part, refuse_what_needs_all_gradients
from ftk_training.matrices import named_matrices, the_rest

from ftk_apollo import ApolloOptions

if TYPE_CHECKING:
    from ftk.run import Run
    from torch import nn

GROWTH = 1.01
"""The most that the norm of a step may grow from one to the next (Chen et al. 2024, Fira)."""


@dataclass(frozen=True)
class Apollo:
    """Zhu et al. 2024, algorithm 1.

    seed: of all projections. names: weight → its name, which makes its projections its own.
    """

    rank: int
    interval: int
    scale: float
    projection: str
    side: str
    by_channel: bool
    limit_last: bool
    seed: int
    names: Mapping[torch.Tensor, str] = field(metadata=UNSAVED)

    def update(
        self, weight: torch.Tensor, gradient: torch.Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        gradient_EMN = gradient.float()
        left = self._is_left(weight)
        small = self._projected(weight, gradient_EMN, left, state)
        first, denominator, correction = adam(small, state, group, Plain())
        second_correction = math.sqrt(1 - group["betas"][1] ** state["step"])
        along = -2 if left else -1  # the rank's dimension; what stays is the other one, that of the channels
        dims = (along,) if self.by_channel else (-2, -1)
        # as in the authors' code the limit is on steps whose moments are not corrected yet
        adams = (first / denominator).div_(second_correction).norm(dim=dims, keepdim=True)
        step = gradient_EMN * (adams / (small.norm(dim=dims, keepdim=True) + 1e-8))
        step = limited(step * self.scale, state) if self.limit_last else limited(step, state) * self.scale
        decay(weight, group)
        weight.add_(step.to(weight.dtype), alpha=-group["lr"] * second_correction / correction)

    def _is_left(self, weight: torch.Tensor) -> bool:
        rows, columns = weight.shape[-2:]
        return rows < columns if self.side == "std" else self.side == "left"

    def _projected(
        self, weight: torch.Tensor, gradient_EMN: torch.Tensor, left: bool, state: dict[str, Any]
    ) -> torch.Tensor:
        """The projected gradient: (E, R, N) from the left, (E, M, R) from the right."""
        steps = state.get("step", 0)
        if self.projection == "svd":
            if steps % self.interval == 0:
                u_EMK, _, vt_EKN = torch.linalg.svd(gradient_EMN, full_matrices=False)
                leading = u_EMK[..., : self.rank].mT if left else vt_EKN[..., : self.rank, :].mT
                state["projection"] = leading.clone()
            projection = state["projection"]
        else:
            projection = self._drawn(weight, gradient_EMN, left, steps // self.interval)
        return projection @ gradient_EMN if left else gradient_EMN @ projection

    def _drawn(self, weight: torch.Tensor, like: torch.Tensor, left: bool, times: int) -> torch.Tensor:
        """Normal values of variance 1 / R, (R, M) or (N, R): the same until the next refresh, without being kept."""
        key = f"{self.seed} {self.names[weight]} {times}"
        seed = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=7).digest(), "big")
        generator = torch.Generator(like.device).manual_seed(seed)
        shape = (self.rank, like.shape[-2]) if left else (like.shape[-1], self.rank)
        return torch.randn(shape, generator=generator, device=like.device) / math.sqrt(self.rank)


def limited(step: torch.Tensor, state: dict[str, Any]) -> torch.Tensor:
    """``step``, made smaller when its norm is more than 1.01 times that of the step before."""
    norm = step.norm()
    if "norm" in state:
        limiter = (norm / (state["norm"] + 1e-8)).clamp(min=GROWTH) / GROWTH
        step, norm = step / limiter, norm / limiter
    state["norm"] = norm
    return step


def build(model: nn.Module, run: Run) -> EachWeight:
    """APOLLO for the matrices that ``apollo_target`` names, AdamW for what else learns.

    Raises ConfigError for names that fit nothing.
    """
    options = run.options(ApolloOptions)
    scaled = named_matrices(model, options.apollo_target, run.plan.where("apollo_target"))
    rule = Apollo(
        rank=options.apollo_rank,
        interval=options.apollo_update_interval,
        scale=math.sqrt(options.apollo_scale),
        projection=options.apollo_proj,
        side=options.apollo_proj_type,
        by_channel=options.apollo_scale_type == "channel",
        limit_last=options.apollo_scale_front,
        seed=run.seed,
        names={weight: name for name, weight in scaled.items()},
    )
    parts = [Part(rule, list(scaled.values())), Part(AdamW(), the_rest(model, scaled))]
    return each_weight.make(run, model, parts, layerwise="apollo_layerwise" if options.apollo_layerwise else "")


def check(run: Run) -> None:
    """Refuse what updates within the backward pass cannot do, before a model is loaded. Raises ConfigError."""
    if run.options(ApolloOptions).apollo_layerwise:
        refuse_what_needs_all_gradients(run, "apollo_layerwise")


build.check = check  # type: ignore[attr-defined]
