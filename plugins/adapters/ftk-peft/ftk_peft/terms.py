"""The low-rank terms of a model, for variants that begin them otherwise.

Shapes: W (out, in), A (r, in), B (out, r). The scale s is LoRA's, so that a layer's matrix is W + s B A.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from ftk_training.quick_imports import quick_imports

with quick_imports():
    from peft.tuners.lora import LoraLayer
    from peft.tuners.lora.layer import ParamWrapper


class Factors(NamedTuple):
    """A and B of one matrix."""

    a: torch.Tensor
    b: torch.Tensor


@dataclass(frozen=True)
class Term:
    """The term beside one layer. transposed: whether the layer keeps its matrix as (in, out).

    lengths: DoRA's, (out,), when it takes part.
    """

    layer: Any
    a: torch.nn.Parameter
    b: torch.nn.Parameter
    scale: float
    transposed: bool
    lengths: torch.nn.Parameter | None = None

    @property
    def rank(self) -> int:
        return int(self.a.shape[0])

    def matrix(self) -> torch.Tensor:
        """The layer's own matrix W, float32."""
        weight = self.layer.weight.data
        return (weight.T if self.transposed else weight).float()

    def add(self, sign: float, factors: Factors) -> None:
        """Add ``sign * s B A`` to the layer's matrix."""
        weight = self.layer.weight
        w = self.matrix()
        changed = w + sign * self.scale * (factors.b.to(w) @ factors.a.to(w))
        weight.data = (changed.T if self.transposed else changed).to(weight.dtype).contiguous()

    def set(self, factors: Factors) -> Factors:
        """Make these the term's, and return them as they are in its type."""
        self.a.data, self.b.data = (new.to(old) for new, old in zip(factors, (self.a, self.b), strict=True))
        return Factors(self.a.detach().clone(), self.b.detach().clone())


def terms_of(model: Any) -> dict[str, Term]:
    """Every matrix with a term, by its name in the saved adapter. Embeddings and fused experts are left out."""
    found = {}
    for name, module in model.named_modules():
        if not isinstance(module, LoraLayer) or isinstance(module, ParamWrapper) or "default" not in module.lora_A:
            continue
        a, b = module.lora_A["default"].weight, module.lora_B["default"].weight
        transposed = bool(getattr(module, "fan_in_fan_out", False))
        dora = dict(module.lora_magnitude_vector.items()).get("default")
        lengths = getattr(dora, "weight", None)
        found[name] = Term(module.get_base_layer(), a, b, module.scaling["default"], transposed, lengths)
    return found


def has_embedding_terms(model: Any) -> bool:
    """Whether embeddings have terms."""
    return any(isinstance(one, LoraLayer) and "default" in one.lora_embedding_A for one in model.modules())


def principal(w: torch.Tensor, rank: int, scale: float, iterations: int = -1) -> Factors:
    """A and B with s B A being the best approximation of W at that rank (Eckart and Young).

    iterations: of the randomised decomposition (Halko et al. 2011); -1 is the exact one.
    """
    if iterations < 0:
        u, s, vh = torch.linalg.svd(w, full_matrices=False)
        u, s, vh = u[:, :rank], s[:rank], vh[:rank]
    else:
        u, s, v = torch.svd_lowrank(w, rank, niter=iterations)
        vh = v.T
    root = (s / scale).sqrt()
    return Factors((root[:, None] * vh).contiguous(), (u * root).contiguous())
