"""From ftk's Sampling to the fields of vLLM's SamplingParams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ftk import DataError, Sampling

APART = 0x9E3779B1
"""How far the seeds of a call's answers are apart."""


def params_of(
    sampling: Sampling, ends: Sequence[int], stops: Sequence[str], room: int, number: int = 0
) -> dict[str, Any]:
    """The fields for the ``number``-th answer of a call, of at most ``room`` tokens.

    Under ``structured_outputs`` are the arguments of ``StructuredOutputsParams``. Raises DataError for what vLLM has
    not.
    """
    if sampling.num_beams > 1:
        raise DataError(f"num_beams: {sampling.num_beams}: vllm has no beam search. infer_backend: huggingface has")
    greedy = not sampling.do_sample
    fields: dict[str, Any] = {
        "temperature": 0.0 if greedy else sampling.temperature,
        "top_p": 1.0 if greedy else sampling.top_p,
        "top_k": 0 if greedy else sampling.top_k,
        "min_p": 0.0 if greedy else sampling.min_p,
        "repetition_penalty": sampling.repetition_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "max_tokens": room,
        "stop": [stop for stop in (*stops, *sampling.stop) if stop],
        "stop_token_ids": sorted({*ends, *sampling.stop_ids}),
        "skip_special_tokens": sampling.skip_special_tokens,
        "spaces_between_special_tokens": False,
        "logprobs": sampling.logprobs,
        "seed": None if sampling.seed is None else (sampling.seed + number * APART) % 2**31,
    }
    if sampling.schema is not None:
        fields["structured_outputs"] = {"json": dict(sampling.schema)} if sampling.schema else {"json_object": True}
    return fields
