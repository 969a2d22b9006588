"""How PiSSA begins."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch
from ftk import ModelError
from ftk_peft.terms import Factors, has_embedding_terms, principal, terms_of
from ftk_training.learning import set_form
from transformers.integrations import is_deepspeed_zero3_enabled

from ftk_pissa import PissaOptions
from ftk_pissa.converting import Converting

if TYPE_CHECKING:
    from ftk.run import Run

log = logging.getLogger("ftk.pissa")


def check(config: Any, run: Run) -> Any:
    """peft's config as it is.

    Raises ModelError under ZeRO-3, and where experts that share a parameter are to learn: a term for all of them has no
    one matrix to begin with.
    """
    where = run.plan.where("pissa_init")
    if is_deepspeed_zero3_enabled():
        raise ModelError(f"{where}: ZeRO-3 splits matrices before they are decomposed. Take stage 2")
    if config.target_parameters:
        raise ModelError(
            f"{where}: experts that share a parameter cannot have it. Name the layers in "
            f"lora_target without {', '.join(config.target_parameters)}: {', '.join(sorted(config.target_modules))}"
        )
    return config


def begin(model: Any, run: Run, new: bool) -> Any:
    """The model with each new term being the best approximation of its matrix, and the matrix what that leaves.

    The sum is what it was, up to rounding. The same seed gives the same terms, so that a resumed run finds its own.
    An adapter that goes on is left alone. Raises ModelError when embeddings have terms.
    """
    options = run.options(PissaOptions)
    if not new:
        log.warning("%s has no effect: the adapter goes on as it is", run.plan.where("pissa_init"))
        return model
    if has_embedding_terms(model):
        raise ModelError(f"{run.plan.where('pissa_init')}: embeddings cannot have it. Take them out of lora_target")
    initial: dict[str, Factors] = {}
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(run.seed)
        for name, term in terms_of(model).items():
            factors = term.set(principal(term.matrix(), term.rank, term.scale, options.pissa_iter))
            term.add(-1, factors)
            initial[name] = Factors(factors.a.cpu(), factors.b.cpu())
    log.info("%d matrices were decomposed", len(initial))
    set_form(run, Converting(run, initial, options.pissa_convert))
    return model
