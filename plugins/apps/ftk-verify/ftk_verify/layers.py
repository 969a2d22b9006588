"""Fields of configs, whatever they are called, and which layers of a model are left.

Configs differ in names and in what they compute; the functions here read and set without minding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

LAYERS = ("num_hidden_layers", "depth", "num_layers", "encoder_layers", "decoder_layers")
"""Names of the number of layers; the first that a config has counts, aliases of the class included."""

PERIODS = (
    "attn_layer_period", "expert_layer_period", "full_attention_interval", "sliding_window_pattern",
    "interleave_moe_layer_step", "moe_layer_frequency", "global_attn_every_n_layers", "hybrid_override_period",
)  # fmt: skip
"""Every so manieth layer is of another kind."""


def first(part: Any, names: Sequence[str]) -> tuple[str, int] | None:
    """The first of the names that a config has as a number."""
    for name in names:
        value = read(part, name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return name, value
    return None


def read(part: Any, name: str) -> Any:
    """A field, None where there is none; of one that differs from layer to layer the config's own (Gemma 4)."""
    try:
        return getattr(part, name, None)
    except (NotImplementedError, AttributeError, TypeError, KeyError):
        return None
    except RuntimeError:
        return vars(part).get(name)


def put(part: Any, name: str, value: Any) -> None:
    """Set a field, unless the class computes it."""
    if not isinstance(getattr(type(part), name, None), property):
        setattr(part, name, value)


def cut_layers(part: Any, least: int, own: Mapping[int, Any]) -> dict[int, Any]:
    """Leave of each kind of layers one, in their order, and at least ``least``; returns the ``own`` values of these."""
    found = first(part, LAYERS)
    if found is None:
        return {}
    total = found[1]
    lists, indices = _layer_lists(part, total)
    kinds = [
        (repr(own.get(i)), *(repr(values[i]) for values in lists.values()), *(i in one for one in indices.values()))
        for i in range(total)
    ]
    least = max(least, *(int(read(part, key) or 0) for key in PERIODS)) if not lists else least
    picked = sorted({kinds.index(kind) for kind in kinds})
    for i in range(total):
        if len(picked) >= min(least, total):
            break
        if i not in picked:
            picked.append(i)
    picked.sort()
    for key, values in lists.items():
        put(part, key, [values[i] for i in picked])
    for key, members in indices.items():
        put(part, key, [place for place, i in enumerate(picked) if i in members])
    for key in LAYERS:
        if read(part, key) == total:
            put(part, key, len(picked))
    return {place: own[i] for place, i in enumerate(picked) if i in own}


def _layer_lists(part: Any, total: int) -> tuple[dict[str, list[Any]], dict[str, list[int]]]:
    """Fields that say something of every layer, and those that list some layers."""
    lists: dict[str, list[Any]] = {}
    indices: dict[str, list[int]] = {}
    for key, value in vars(part).items():
        if not isinstance(value, list | tuple) or not value:
            continue
        numbers = [one for one in value if isinstance(one, int) and 0 <= one < total]
        listed = len(numbers) == len(value) and numbers == sorted(set(numbers))
        if listed and key.endswith(("_indexes", "_indices", "_idxs", "_ids", "_layers")):
            indices[key] = numbers
        elif len(value) == total:
            lists[key] = list(value)
    return lists, indices
