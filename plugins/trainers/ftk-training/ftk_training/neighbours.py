"""Whether a model keeps documents of one row apart, found out by trying.

All that tells a model where a document begins are ``position_ids`` that restart. Attention masks of transformers heed
them where a model's code hands them on, which not all of it does; states and convolutions run over the border, and so
do positions that are counted elsewhere (ALiBi). Nothing says which model is which: ``_is_stateful`` marks some that
keep documents apart and leaves out some that do not. So two short rows are tried.

Shapes: B rows, T tokens, V words.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from ftk import ConfigError

from ftk_training.collator import IGNORED, Collator
from ftk_training.one_row import are_packed
from ftk_training.quiet import quiet

if TYPE_CHECKING:
    from ftk_training.trainer import ExactTrainer

log = logging.getLogger("ftk.training")

LENGTH = 8
"""Tokens of a document that is tried; two fill a row whose length tensor cores like."""
TEXT = (
    "One row may hold several texts. What stands in the first must not change what a model makes of the second, "
    "however near they are, because nobody will ever put them together again when they are read later on."
)
FLOOR = 1e-4
"""A change of this share is a leak where nothing else is. Models that keep documents apart have 0, in any precision;
falcon_h1 with random weights, the one in which a state counts least, has 8e-4."""
ABOVE_NOISE = 4


def refuse_leaks(trainer: ExactTrainer) -> None:
    """Raise ConfigError when documents of a row change each other's logits, for a run whose rows hold several.

    Where weights are spread over processes (DeepSpeed, FSDP) nothing is tried, and transformers' mark decides.
    Costs two passes of 32 tokens. Leaves the model and the random state as they were.
    """
    collator = trainer.data_collator
    packed = are_packed(trainer.train_dataset, trainer.eval_dataset)
    if not isinstance(collator, Collator) or not (packed or collator.flat):
        return
    leak = None if trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled else _tried(trainer, collator)
    model = trainer.accelerator.unwrap_model(trainer.model)
    if leak or (leak is None and any(getattr(part, "_is_stateful", False) for part in model.modules())):
        why = "it has a state that runs on from one into the next"
        if leak:
            why = f"another one in front changes the logits of the next by {leak:.2%}"
        model = model.get_base_model() if hasattr(model, "get_base_model") else model
        key, instead = _asked(trainer, packed)
        raise ConfigError(f"{key}: {type(model).__name__} does not keep the texts of a row apart: {why}. {instead}")


def _asked(trainer: ExactTrainer, packed: bool) -> tuple[str, str]:
    """The key that puts texts into one row, where it stands, and what to set instead."""
    plan = trainer.run.plan
    if not packed:
        return plan.where("padding_free"), "Take it out"
    known = [key for key in ("packing", "neat_packing") if key in plan.registry.options]
    keys = [key for key in known if trainer.run.value(key)] or ["packing"]
    return plan.where(keys[0]), f"Set {' and '.join(f'{key}: false' for key in keys)}"


def _tried(trainer: ExactTrainer, collator: Collator) -> float | None:
    """How much a text changes with the one before it, as a share of its logits; 0 when it does not, None when the
    model cannot be tried.

    What a text changes with the one *after* it is subtracted, a few times over: of a causal model that is rounding,
    or tokens that share something of a batch by design (the scale of quantised activations, places at an expert).
    """
    tokens = trainer.run.tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    one, other, text = np.resize(tokens, (3, LENGTH))
    collator = replace(collator, kept_logits=False, blanks={})
    try:
        with quiet(trainer.model), trainer.accelerator.autocast():
            behind = _logits(trainer, collator, [(one, text), (other, text)])[:, LENGTH:]
            ahead = _logits(trainer, collator, [(text, one), (text, other)])[:, :LENGTH]
    except Exception as error:  # what a forward may trip over is not ours to list
        said = " ".join(str(error).split())[:120]
        log.info("whether texts of a row are kept apart could not be tried: %s: %s", type(error).__name__, said)
        return None
    leak, noise = _apart(behind), _apart(ahead)
    return leak if leak > FLOOR + ABOVE_NOISE * noise else 0.0


def _logits(trainer: ExactTrainer, collator: Collator, rows: Sequence[Sequence[np.ndarray]]) -> torch.Tensor:
    """(B, T, V) of packed rows, in batches as the trainer makes them. Tokens that an adapter puts in front are cut."""
    made = [
        {
            "input_ids": np.concatenate(documents),
            "labels": np.full(LENGTH * len(documents), IGNORED),
            "position_ids": np.tile(np.arange(LENGTH), len(documents)),
        }
        for documents in rows
    ]
    found = []
    for part in [[row] for row in made] if collator.flat else [made]:
        batch = trainer._prepare_inputs({key: value for key, value in collator(part).items() if key != "labels"})
        found.append(trainer.model(**batch).logits[:, -2 * LENGTH :].float())
    return torch.cat(found)


def _apart(logits_BTV: torch.Tensor) -> float:
    """The difference of two rows as a share of them."""
    first, second = logits_BTV
    return float((first - second).norm() / first.norm())
