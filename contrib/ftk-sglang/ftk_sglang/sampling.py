"""From ftk's Sampling to ``sampling_params`` of SGLang's ``/generate`` (its documentation, "Sampling Parameters")."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ftk import DataError, Sampling

APART = 0x9E3779B1
"""How far the seeds of a call's answers are apart."""


def params_of(
    sampling: Sampling, ends: Sequence[int], stops: Sequence[str], room: int, number: int = 0
) -> dict[str, Any]:
    """The parameters of the ``number``-th answer of a call, of at most ``room`` tokens.

    Raises DataError for what SGLang has not.
    """
    if sampling.num_beams > 1:
        raise DataError(f"num_beams: {sampling.num_beams}: sglang has no beam search. infer_backend: huggingface has")
    drawing = sampling.do_sample
    made: dict[str, Any] = {
        "max_new_tokens": room,
        "temperature": sampling.temperature if drawing else 0.0,
        "top_p": sampling.top_p if drawing else 1.0,
        "top_k": sampling.top_k if drawing and sampling.top_k else -1,
        "min_p": sampling.min_p if drawing else 0.0,
        "repetition_penalty": sampling.repetition_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "stop": [stop for stop in (*stops, *sampling.stop) if stop],
        "stop_token_ids": sorted({*ends, *sampling.stop_ids}),
        "skip_special_tokens": sampling.skip_special_tokens,
        "spaces_between_special_tokens": False,
    }
    if sampling.seed is not None:
        made["sampling_seed"] = (sampling.seed + number * APART) % 2**31
    if sampling.schema is not None:
        made["json_schema"] = json.dumps(sampling.schema or {"type": "object"})
    return made
