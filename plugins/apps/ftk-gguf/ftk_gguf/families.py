"""Which models can leave as GGUF, and what llama.cpp wants of each to be different.

The names of tensors are those of the ``gguf`` package; here stands what it does not know: the order of rotated rows,
what is added to norms, and the settings that llama.cpp reads. A number that it cannot read is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ftk import ModelError


@dataclass(frozen=True)
class Family:
    """One ``model_type`` of transformers.

    arch: what GGUF calls it. interleaved: the rows of q and k stand in pairs there (rotation as in the paper), while
        transformers has them in halves. norm_plus_one: norms are stored as what they multiply with, one more than in
        transformers. extra: ``extra(config) -> {method of GGUFWriter without "add_": value}``.
    """

    arch: str
    interleaved: bool = False
    norm_plus_one: bool = False
    extra: Callable[[Any], Mapping[str, Any]] = lambda config: {}


def window(config: Any) -> Mapping[str, Any]:
    """Attention to the last tokens only, where all layers do so."""
    return {"sliding_window": config.sliding_window} if getattr(config, "sliding_window", None) else {}


def gemma2(config: Any) -> Mapping[str, Any]:
    _check_layers(config, 2)
    _check_scale(config)
    caps = {key: getattr(config, key) for key in ("attn_logit_softcapping", "final_logit_softcapping")}
    return {**{key: float(value) for key, value in caps.items() if value}, **window(config)}


def gemma3(config: Any) -> Mapping[str, Any]:
    _check_layers(config, 6)
    _check_scale(config)
    for field in ("attn_logit_softcapping", "final_logit_softcapping"):
        if getattr(config, field, None):
            raise ModelError(f"gguf: {field}: llama.cpp has none for this family")
    local = (config.rope_parameters or {}).get("sliding_attention") or {}
    return {**window(config), "rope_freq_base_swa": float(local.get("rope_theta", 10000.0))}


def _check_layers(config: Any, every: int) -> None:
    """llama.cpp lets every second (sixth) layer look at everything, whatever the config says."""
    wanted = [
        "full_attention" if (i + 1) % every == 0 else "sliding_attention" for i in range(config.num_hidden_layers)
    ]
    if list(config.layer_types or wanted) != wanted:
        raise ModelError(f"gguf: layer_types: llama.cpp lets every layer of {every} look at everything, not others")


def _check_scale(config: Any) -> None:
    """It also has the scale of attention built in: the size of a head, but for the 27 billion models."""
    by_heads = config.hidden_size / config.num_attention_heads
    built_in = by_heads if config.num_hidden_layers in (46, 62) else config.head_dim
    if config.query_pre_attn_scalar != built_in:
        raise ModelError(
            f"gguf: query_pre_attn_scalar: {config.query_pre_attn_scalar}: llama.cpp has {built_in:g} built in"
        )


FAMILIES: Mapping[str, Family] = {
    "llama": Family("llama", interleaved=True),
    "mistral": Family("llama", interleaved=True),
    "qwen2": Family("qwen2"),
    "qwen3": Family("qwen3"),
    "gemma": Family("gemma", norm_plus_one=True),
    "gemma2": Family("gemma2", norm_plus_one=True, extra=gemma2),
    "gemma3_text": Family("gemma3", norm_plus_one=True, extra=gemma3),
    "phi3": Family("phi3", extra=window),
}


def family_of(config: Any) -> Family:
    """Raises ModelError for a model that none of them is."""
    if config.model_type not in FAMILIES:
        raise ModelError(f"gguf: {config.model_type} models cannot leave as GGUF. Can: {', '.join(FAMILIES)}")
    return FAMILIES[config.model_type]
