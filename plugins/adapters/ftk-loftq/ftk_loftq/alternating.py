"""Quantised matrix and low-rank term, fitted in turn, wherever the model is (peft's own loop needs a CUDA device).

Shapes: W (out, in), A (r, in), B (out, r). The scale s is LoRA's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from ftk import ModelError
from ftk.run import Run
from ftk_peft.saving import point_to_base
from ftk_peft.terms import Factors, Term, principal, terms_of
from ftk_training.learning import set_form
from ftk_training.quick_imports import quick_imports
from safetensors.torch import load_file

from ftk_loftq import LoftqOptions

with quick_imports():
    from peft import set_peft_model_state_dict
    from peft.utils.integrations import dequantize_module_weight

log = logging.getLogger("ftk.loftq")

Quantize = Callable[[torch.Tensor], torch.Tensor]
"""A matrix as it is after it has been quantised and made plain again."""


def begin(model: Any, run: Run, new: bool) -> Any:
    """The model with each new term beside a quantised matrix being what the matrix lost.

    The matrices as they were come from the model's files, loaded a second time. An adapter that goes on is left alone.
    Raises ModelError when nothing is quantised, or when more iterations are asked for than the quantizer can do.
    """
    if not new:
        log.warning("%s has no effect: the adapter goes on as it is", run.plan.where("loftq_init"))
        return model
    terms = {name: term for name, term in terms_of(model).items() if _is_quantised(term)}
    if not terms:
        raise ModelError(f"{run.plan.where('loftq_init')}: no layer with a term is quantised")
    iterations = run.options(LoftqOptions).loftq_iter
    if iterations > 1 and not all(hasattr(_weight(term), "quant_state") for term in terms.values()):
        raise ModelError(f"{run.plan.where('loftq_iter')}: above 1 it needs nf4 or fp4. Set it to 1")
    original, before, after = _unquantised(run), 0.0, 0.0
    with torch.no_grad():
        for name, term in terms.items():
            w = original.get_submodule(name.removeprefix("base_model.model.")).weight.data.float().to(term.a.device)
            lost, left = fit(term, w, iterations)
            before, after = before + lost, after + left
    log.info("%d matrices: quantisation lost %.4g, %.4g of it is left", len(terms), before**0.5, after**0.5)
    if iterations > 1:
        set_form(run, Changed(run))
    return model


def _is_quantised(term: Term) -> bool:
    weight = _weight(term)
    if hasattr(term.layer, "W_q"):  # HQQ's, whose weight is an empty tensor of the right type
        return True
    return weight is None or not weight.is_floating_point() or type(weight.data) is not torch.Tensor


def _weight(term: Term) -> Any:
    """The layer's weight as it is stored; None where a quantizer keeps it otherwise."""
    return dict(term.layer.named_parameters(recurse=False)).get("weight")


def _unquantised(run: Run) -> Any:
    """The model without quantizer and adapter, in the precision of its files."""
    chosen = {**run.plan.chosen, "quantizer": (), "adapter": ()}
    return Run(replace(run.plan, chosen=chosen)).model(trainable=False)


def fit(term: Term, w: torch.Tensor, iterations: int) -> tuple[float, float]:
    """Fit a layer and its term to W. Returns the squared errors (Frobenius) of the layer alone, and with the term."""
    q = _plain(term)
    lost = float((w - q).pow(2).sum())
    q, factors = alternate(w, q, lambda one: _requantised(term, one), term.rank, term.scale, iterations)
    factors = term.set(factors)
    v = q + term.scale * (factors.b.float() @ factors.a.float())
    if term.lengths is not None:
        term.lengths.data = v.norm(dim=1).to(term.lengths)
    return lost, float((w - v).pow(2).sum())


def alternate(
    w: torch.Tensor, q: torch.Tensor, quantize: Quantize, rank: int, scale: float, iterations: int
) -> tuple[torch.Tensor, Factors]:
    """Algorithm 1: Q is W without the term, quantised; the term is the best approximation of W - Q; and so on.

    q: W quantised, where the first iteration begins.
    """
    factors = principal(w - q, rank, scale)
    for _ in range(1, iterations):
        q = quantize(w - scale * (factors.b @ factors.a))
        factors = principal(w - q, rank, scale)
    return q, factors


def _plain(term: Term) -> torch.Tensor:
    """The quantised matrix as plain numbers: as peft knows it, or as what the layer makes of the unit vectors."""
    w = dequantize_module_weight(term.layer) if _weight(term) is not None or hasattr(term.layer, "W_q") else None
    if w is None or type(w.data) is not torch.Tensor or not w.is_floating_point():
        unit = torch.eye(term.a.shape[1], dtype=term.a.dtype, device=term.a.device)
        w = (term.layer(unit) - term.layer(torch.zeros_like(unit[:1]))).T
    return w.detach().float()


def _requantised(term: Term, w: torch.Tensor) -> torch.Tensor:
    """Quantise W as the layer's matrix is, into the layer, and return what it holds then."""
    old = term.layer.weight
    state = old.quant_state
    kind = {"quant_type": old.quant_type, "blocksize": state.blocksize, "compress_statistics": old.compress_statistics}
    storage = {"quant_storage": old.quant_storage}
    made = type(old)(w.to("cpu", state.dtype), requires_grad=False, **kind, **storage)
    term.layer.weight = made.to(old.device)
    return _plain(term)


class Changed:
    """Results and checkpoints name the changed model, which is saved beside them."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def rewrite(self, model: Any, folder: Path, *, checkpoint: bool) -> None:
        """Save the model beneath once, and make the adapter name it."""
        point_to_base(model, self.run, folder)

    def restore(self, model: Any, folder: Path) -> None:
        """The terms of a checkpoint; the matrices have just been fitted again, to the same."""
        set_peft_model_state_dict(model, load_file(folder / "adapter_model.safetensors"))
