"""The optimizers: AdamW, AdamW with moments in 8 bits, and Adafactor, each on projected gradients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from ftk import ConfigError
from ftk_training import each_weight
from ftk_training.adamw import AdamW, Moments, Plain, adam, decay
from ftk_training.each_weight import EachWeight, Part, refuse_what_needs_all_gradients
from ftk_training.matrices import named_matrices, the_rest
from torch import nn

from ftk_galore import GaloreOptions
from ftk_galore.adafactor import Adafactor, direction
from ftk_galore.eight_bits import EightBits
from ftk_galore.projection import Projection

if TYPE_CHECKING:
    from ftk.run import Run

OPTIMS: Mapping[str, str] = {
    **dict.fromkeys(("adamw_torch", "adamw_torch_fused"), "adamw"),
    **dict.fromkeys(("adamw_bnb_8bit", "adamw_8bit", "paged_adamw_8bit"), "adamw in 8 bits"),
    "adafactor": "adafactor",
}
"""Value of ``optim`` → what works on the projected gradients."""


@dataclass(frozen=True)
class GaloreAdamW:
    """Adam with GaLore (Zhao et al. 2024, section 4), with decoupled weight decay."""

    projection: Projection
    scale: float
    moments: Moments

    def update(
        self, weight: torch.Tensor, gradient: torch.Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        small = self.projection.down(gradient, state)
        first, denominator, correction = adam(small, state, group, self.moments)
        step = self.projection.up(first / denominator, state)
        decay(weight, group)
        weight.add_(step.to(weight.dtype), alpha=-group["lr"] * self.scale / correction)


@dataclass(frozen=True)
class GaloreAdafactor:
    """Adafactor's direction for the projected gradient."""

    projection: Projection
    scale: float

    def update(
        self, weight: torch.Tensor, gradient: torch.Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        step = self.projection.up(direction(self.projection.down(gradient, state), state), state)
        decay(weight, group)
        weight.add_(step.to(weight.dtype), alpha=-group["lr"] * self.scale)


def build(model: nn.Module, run: Run) -> EachWeight:
    """GaLore for the matrices that ``galore_target`` names, its inner optimizer alone for what else learns.

    Raises ConfigError for names that fit nothing, and for an ``optim`` that GaLore cannot work with.
    """
    options = run.options(GaloreOptions)
    projected = named_matrices(model, options.galore_target, run.plan.where("galore_target"))
    projection = Projection(options.galore_rank, options.galore_update_interval, options.galore_proj_type)
    inner = _inner(run)
    rest = the_rest(model, projected)
    if inner == "adafactor":
        parts = [
            Part(GaloreAdafactor(projection, options.galore_scale), list(projected.values())),
            Part(Adafactor(), rest),
        ]
    else:
        moments: Moments = EightBits() if inner == "adamw in 8 bits" else Plain()
        embeddings = {module.weight for module in model.modules() if isinstance(module, nn.Embedding)}
        parts = [
            Part(GaloreAdamW(projection, options.galore_scale, moments), list(projected.values())),
            Part(AdamW(moments), [weight for weight in rest if weight not in embeddings]),
            Part(AdamW(), [weight for weight in rest if weight in embeddings]),  # unstable in 8 bits
        ]
    return each_weight.make(run, model, parts, layerwise="galore_layerwise" if options.galore_layerwise else "")


def check(run: Run) -> None:
    """Refuse what GaLore cannot work with, before a model is loaded. Raises ConfigError."""
    _inner(run)
    if run.options(GaloreOptions).galore_layerwise:
        refuse_what_needs_all_gradients(run, "galore_layerwise")


build.check = check  # type: ignore[attr-defined]


def _inner(run: Run) -> str:
    optim = run.value("optim")
    if optim not in OPTIMS:
        raise ConfigError(f"{run.plan.where('optim')}: GaLore does not work with it. Take one of {', '.join(OPTIMS)}")
    return OPTIMS[optim]
