"""The rotation of queries and keys as GGUF says it: settings, and for some kinds tensors of factors."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from ftk import ModelError
from gguf import GGUFWriter, RopeScalingType

PLAIN = {"linear": RopeScalingType.LINEAR, "yarn": RopeScalingType.YARN}


def parameters(config: Any) -> dict[str, Any]:
    """transformers' ``rope_parameters`` of the layers that look at everything."""
    found = dict(getattr(config, "rope_parameters", None) or {})
    return dict(found.get("full_attention") or found)


def head_dim(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def rotated(config: Any) -> int:
    """How many of a head's numbers are rotated."""
    return int(head_dim(config) * parameters(config).get("partial_rotary_factor", 1.0))


def write_rope(writer: GGUFWriter, config: Any) -> None:
    """The settings. Raises ModelError for a kind that llama.cpp has not got."""
    rope = parameters(config)
    kind = rope.get("rope_type", "default")
    writer.add_rope_dimension_count(rotated(config))
    writer.add_rope_freq_base(float(rope.get("rope_theta", 10000.0)))
    original = rope.get("original_max_position_embeddings")
    if config.model_type == "phi3":
        original = (
            original or getattr(config, "original_max_position_embeddings", None) or config.max_position_embeddings
        )
        writer.add_rope_scaling_orig_ctx_len(int(original))
    if kind in PLAIN:
        writer.add_rope_scaling_type(PLAIN[kind])
        writer.add_rope_scaling_factor(float(rope["factor"]))
        if original and config.model_type != "phi3":
            writer.add_rope_scaling_orig_ctx_len(int(original))
    elif kind == "longrope":
        share = config.max_position_embeddings / original
        factor = rope.get("attention_factor") or (
            math.sqrt(1 + math.log(share) / math.log(original)) if share > 1 else 1.0
        )
        writer.add_rope_scaling_attn_factors(float(factor))
    elif kind not in ("default", "llama3"):
        raise ModelError(
            f"gguf: rope_type {kind}: llama.cpp has none like it. It has default, linear, yarn, llama3, longrope"
        )


def factors(config: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Tensors (rotated / 2) by which frequencies are divided: Llama 3's, and LongRoPE's for short and long texts."""
    rope = parameters(config)
    kind = rope.get("rope_type", "default")
    if kind == "longrope":
        yield "rope_factors_long.weight", np.array(rope["long_factor"], dtype=np.float32)
        yield "rope_factors_short.weight", np.array(rope["short_factor"], dtype=np.float32)
    if kind == "llama3":
        size = rotated(config)
        frequency = 1.0 / float(rope["rope_theta"]) ** (np.arange(0, size, 2, dtype=np.float64) / size)
        yield "rope_freqs.weight", llama3_factors(frequency, rope)


def llama3_factors(frequency: np.ndarray, rope: dict[str, Any]) -> np.ndarray:
    """Long waves are stretched by ``factor``, short ones not, those between in part (Llama 3.1's own code)."""
    low, high, factor = (float(rope[key]) for key in ("low_freq_factor", "high_freq_factor", "factor"))
    waves = float(rope["original_max_position_embeddings"]) * frequency / (2 * math.pi)
    part = np.clip((waves - low) / (high - low), 0.0, 1.0)
    return (1.0 / ((1 - part) / factor + part)).astype(np.float32)
