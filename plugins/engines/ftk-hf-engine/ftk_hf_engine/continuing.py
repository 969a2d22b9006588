"""How probable a model finds what follows on what it has read: for evaluation that asks for no answer.

Shapes: R rows that are read, T tokens of the longest, P places whose logits are wanted, V words.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from ftk import DataError

from ftk_hf_engine.scoring import Placed

Asked = tuple[Sequence[int], Sequence[int]]
"""(tokens that are read, tokens that follow), both at least one."""


@torch.no_grad()
def likelihoods(
    model: Any, asked: Sequence[Asked], pad_id: int, limit: int | None, placed: Placed
) -> list[list[tuple[float, bool]]]:
    """For each that is asked: the natural log-probability of each token that follows, and whether it is the likeliest.

    All are one batch, padded on the right; what is read twice is a row once, so that several single tokens after the
    same text cost as much as one. Logits are made at the places alone that are asked for, where the model can do that.
    Raises DataError for nothing to read or to follow, and for more tokens than the model reads.
    """
    if not asked:
        return []
    for read, follows in asked:
        if not read or not follows:
            raise DataError("likelihoods: at least one token is read, and at least one follows")
        if limit and len(read) + len(follows) - 1 > limit:
            raise DataError(f"there are {len(read) + len(follows) - 1} tokens, but the model reads {limit}. Shorten it")
    number_of = {row: number for number, row in enumerate(dict.fromkeys((*read, *near[:-1]) for read, near in asked))}
    width = max(map(len, number_of))
    ids_RT = torch.tensor([[*row, *[pad_id] * (width - len(row))] for row in number_of])
    mask_RT = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in number_of])
    wanted = sorted({len(read) - 1 + step for read, near in asked for step in range(len(near))})
    logits_RPV = _logits_at(model, placed({"input_ids": ids_RT, "attention_mask": mask_RT}, ()), wanted)
    place_of = {place: number for number, place in enumerate(wanted)}
    found = []
    for read, follows in asked:
        row = number_of[(*read, *follows[:-1])]
        first = place_of[len(read) - 1]  # places of one continuation stand next to each other
        log_probs_V = logits_RPV[row, first : first + len(follows)].float().log_softmax(-1)
        said = torch.tensor(follows, device=log_probs_V.device)
        values = log_probs_V.gather(1, said[:, None])[:, 0].tolist()
        found.append(list(zip(values, (log_probs_V.argmax(-1) == said).tolist(), strict=True)))
    return found


def _logits_at(model: Any, inputs: dict[str, torch.Tensor], places: Sequence[int]) -> torch.Tensor:
    """Logits (R, P, V) at places of the sequence."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    places_P = torch.tensor(places, device=inputs["input_ids"].device)
    if "logits_to_keep" in inspect.signature(base.forward).parameters:
        logits_RPV: torch.Tensor = model(**inputs, use_cache=False, logits_to_keep=places_P).logits
        return logits_RPV
    logits_RTV: torch.Tensor = model(**inputs, use_cache=False).logits
    return logits_RTV[:, places_P.to(logits_RTV.device)]
