"""Whether prompts can be computed once for both answers of a pair, found out by trying, and whether that pays."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ftk_training.checkpoints import configs_of
from ftk_training.collator import IGNORED, Collator
from ftk_training.logprobs import target_logits
from ftk_training.neighbours import ABOVE_NOISE, FLOOR, TEXT
from ftk_training.pairs import SIDES, Pair, PairCollator, common_length, pair_inputs, pair_targets, pairs_of, text_of
from ftk_training.quiet import quiet

if TYPE_CHECKING:
    from ftk_training.trainer import ExactTrainer

log = logging.getLogger("ftk.training")

LOOKED_AT = 64
"""So many rows say whether it pays."""
WORTH = 0.1
"""The share of tokens that must be saved; a mask of its own costs some of the speed of attention."""
MASKED = {"sdpa": None, "eager": torch.float32}
"""Implementations of attention that take any mask, and the type of an additive one."""


def additive_of(model: Any) -> torch.dtype | None:
    """The type of numbers in the masks that a model's attention adds; None when it takes truth values."""
    return MASKED.get(_attention(model))


def _attention(model: Any) -> str:
    return str(getattr(configs_of(model)[-1], "_attn_implementation", "")) if configs_of(model) else ""


def why_not(trainer: ExactTrainer, models: list[Any], *, pays: bool = True) -> str:
    """Why the prompts of a trainer's rows are not shared; empty when they can be.

    models: all that go through a batch. pays: also when it saves little or ``padding_free`` asks for one long row, it
    is not done.
    """
    base = trainer.data_collator
    if pays and base.flat:
        return "padding_free puts all texts into one row"
    rows = [one for one in (trainer.train_dataset, trainer.eval_dataset) if hasattr(one, "lengths_N")]
    longest = max((int(one.lengths_N.max(initial=0)) for one in rows), default=2**31)
    for model in models:
        if why := _unfit(model, longest) or _differs(trainer, model, base):
            return why
    saved = saved_share(trainer.train_dataset or trainer.eval_dataset)
    if pays and saved < WORTH:
        return f"it would save {saved:.0%} of the tokens"
    log.info("prompts are computed once for both answers: %.0f%% fewer tokens", 100 * saved)
    return ""


def saved_share(rows: Any) -> float:
    """The share of the tokens of some rows that need not be computed."""
    every = saved = 0
    for pair in _some_pairs(rows):
        chosen, rejected = (text_of(pair, side) for side in SIDES)
        every += len(chosen.ids_T) + len(rejected.ids_T)
        saved += 0 if chosen.media or rejected.media else common_length(chosen, rejected)
    return saved / max(every, 1)


def _some_pairs(rows: Any) -> Iterator[Pair]:
    if isinstance(rows, dict):
        rows = next(iter(rows.values()))
    if not hasattr(rows, "__len__"):
        return
    numbers = np.linspace(0, len(rows) - 1, min(LOOKED_AT, len(rows))).astype(int)
    yield from islice((pair for number in numbers for pair in pairs_of([rows[int(number)]])[0]), LOOKED_AT)


def _unfit(model: Any, longest: int) -> str:
    attention = _attention(model)
    if attention not in MASKED:
        return f"attention {attention or 'of this model'} takes no mask of its own"
    for config in configs_of(model):
        window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
        for reach in (window, getattr(config, "attention_chunk_size", None)):
            if reach and reach < longest:
                return f"attention reaches {reach} tokens back and a text has {longest}"
    return ""


def _differs(trainer: ExactTrainer, model: Any, base: Collator) -> str:
    """Logits of the same pairs in both layouts, compared. What a batch of several changes anyway is rounding."""
    pairs = list(_tried_pairs(trainer.run.tokenizer))
    apart = PairCollator(Collator(pad_id=base.pad_id, multiple=base.multiple))
    shared = PairCollator(apart.base, shared=True)
    try:
        with quiet(model), trainer.accelerator.autocast():
            together_NV = _logits(trainer, model, apart(pairs))
            shared_NV = _logits(trainer, model, shared(pairs))
            alone = [_logits(trainer, model, apart([pair])).chunk(2) for pair in pairs]
    except Exception as error:  # what a forward may trip over is not ours to list
        return f"the model cannot: {type(error).__name__}: {' '.join(str(error).split())[:120]}"
    alone_NV = torch.cat([part for side in zip(*alone, strict=True) for part in side])
    share, noise = _apart(shared_NV, together_NV), _apart(alone_NV, together_NV)
    return f"it would change the logits of the model by {share:.2%}" if share > FLOOR + ABOVE_NOISE * noise else ""


def _tried_pairs(tokenizer: Any) -> Iterator[Pair]:
    """Prompts of several lengths with two answers of the same length each."""
    tokens = np.resize(tokenizer(TEXT, add_special_tokens=False)["input_ids"], 64)
    for prompt, answer in ((8, 5), (3, 9), (6, 4)):
        pair = {}
        for number, side in enumerate(SIDES):
            ids = np.concatenate((tokens[:prompt], tokens[prompt + 10 * number :][:answer]))
            labels = np.concatenate((np.full(prompt, IGNORED), ids[prompt:]))
            pair |= {f"{side}_input_ids": ids, f"{side}_labels": labels}
        yield pair


def _logits(trainer: ExactTrainer, model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """(N, V), by text."""
    batch = trainer._prepare_inputs(batch)
    return target_logits(model, pair_inputs(batch, additive=additive_of(model)), pair_targets(batch)).float()


def _apart(one_NV: torch.Tensor, other_NV: torch.Tensor) -> float:
    """The difference as a share."""
    return float((one_NV - other_NV).norm() / other_NV.norm())
