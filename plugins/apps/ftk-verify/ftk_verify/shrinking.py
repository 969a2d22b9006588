"""A small config of the same architecture: few layers of every kind that there are, narrow, with few experts.

What the code of a family branches on stays: kinds of layers, grouped or single key heads, tied embeddings, types of
rotary positions, shared and routed experts, towers; so do the vocabulary, the numbers of tokens, and whatever a
processor must agree with (sizes of images and patches). Widths keep their ratios to each other where that can be.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ftk import ModelError

from ftk_verify.layers import cut_layers, first, put, read

HEADS = ("num_attention_heads", "num_heads", "encoder_attention_heads", "decoder_attention_heads")
KEY_HEADS = ("num_key_value_heads", "num_kv_heads", "num_global_key_value_heads")
WIDTHS = ("embed_dim", "hidden_size", "d_model", "word_embed_proj_dim")
"""Names of one thing in different configs; the first that a config has counts, aliases of the class included."""

CAPPED: Mapping[str, int] = {
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "moe_num_experts": 4, "moe_num_shared_experts": 1,
    "num_experts_per_tok": 2, "num_experts_per_token": 2, "moe_topk": 2, "moe_k": 2, "top_k_experts": 2,
    "n_shared_experts": 1, "num_shared_experts": 1, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1,
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16,
    "state_size": 8, "ssm_state_size": 8, "mamba_d_state": 8, "mamba_chunk_size": 16,
    "hidden_size_per_layer_input": 16, "num_kv_shared_layers": 0, "num_nextn_predict_layers": 0,
    "altup_num_inputs": 2, "laurel_rank": 8, "max_window_layers": 1, "index_n_heads": 4, "index_head_dim": 16,
    "index_topk": 16, "adapter_rank": 8, "lora_rank": 8, "moe_layer_start_index": 1,
    "decoder_sparse_step": 1,
}  # fmt: skip
"""What is made this small where it is larger; zero and nothing stay what they are."""

SCALED = (
    "intermediate_size", "moe_intermediate_size", "shared_expert_intermediate_size", "intermediate_size_mlp", "n_inner",
    "ffn_dim", "ffn_hidden_size", "mlp_hidden_size", "encoder_ffn_dim", "decoder_ffn_dim",
    "moe_shared_expert_intermediate_size", "shared_intermediate_size",
    "dense_intermediate_size", "expert_ffn_hidden_size", "conv_dim", "conv_dim_out",
    "block_ff_dim", "lru_width", "projection_dim", "attention_hidden_size",
)  # fmt: skip
"""Widths that go with the hidden size."""

OF_TEXT = ("out_hidden_size", "text_hidden_size", "llm_hidden_size", "output_dim", "hidden_size", "projection_dim")
"""Fields of a tower that have to be the language model's width when they are."""

MOST = 400_000_000
"""Parameters of the largest model that is rehearsed with."""


@dataclass(frozen=True)
class Widths:
    """Sizes of a part before and after. head: of one attention head."""

    hidden: int
    heads: int
    head: int
    new_hidden: int
    new_heads: int
    new_head: int

    def scaled(self, value: int, multiple: int = 16) -> int:
        """A width that goes with the hidden size."""
        return max(2 * multiple, -(-value * self.new_hidden // self.hidden // multiple) * multiple)


def shrunk(config: Any, least: int = 64) -> Any:
    """The small config of a model's config, which stays as it is. least: of hidden sizes, and ratios allow more.

    Raises ModelError when this kind of config gives no hold.
    """
    made = copy.deepcopy(config)
    text = made.get_text_config(decoder=True)
    before = first(text, WIDTHS)
    parts = list(_parts(made))
    needed = _layers_read(made)
    for part in parts:
        _shrink_part(part, least, needed if part is not text else 2)
    after = first(text, WIDTHS)
    if before is None or after is None:
        raise ModelError(f"{made.model_type}: its config names no hidden size, so it cannot be shrunk")
    for part in parts:
        if part is not text:
            _fit_to_text(part, getattr(config, "hidden_size", None) or before[1], after[1])
    for part in parts:
        if hasattr(part, "quantization_config"):
            delattr(part, "quantization_config")
    return made


def _parts(config: Any) -> Iterator[Any]:
    """A config and those in it that have layers of their own."""
    yield config
    for name in type(config).sub_configs:
        inner = getattr(config, name, None)
        if inner is not None and hasattr(inner, "to_dict"):
            yield from _parts(inner)


def _layers_read(config: Any) -> int:
    """How many layers a tower must have at least, because features are read from one of them."""
    wanted = getattr(config, "vision_feature_layer", None)
    numbers = [wanted] if isinstance(wanted, int) else list(wanted or ())
    return max([2, *(-one if one < 0 else one + 1 for one in numbers)])


def _shrink_part(part: Any, least: int, least_layers: int) -> None:
    own = part.to_dict().get("per_layer_config") or {}  # values of single layers that differ from the config's own
    if own:
        part.per_layer_config = None
    own = cut_layers(part, least_layers, {int(layer): values for layer, values in own.items()})
    widths = _widths(part, least)
    if widths is None:
        return
    if own:
        part.per_layer_config = {
            place: {key: value * widths.new_head // widths.head for key, value in values.items()}
            for place, values in own.items()
        }
    for name in WIDTHS:
        if read(part, name) == widths.hidden:
            put(part, name, widths.new_hidden)
    _set_heads(part, widths)
    for name in SCALED:
        value = read(part, name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            put(part, name, widths.scaled(value))
        elif isinstance(value, list) and value:
            put(part, name, [widths.scaled(one) for one in value])
    for name, most in CAPPED.items():
        value = read(part, name)
        if isinstance(value, int) and not isinstance(value, bool) and value > most:
            put(part, name, most)
    _fit_states(part, widths)
    _fit_positions(part, widths)


def _widths(part: Any, least: int) -> Widths | None:
    hidden, heads = first(part, WIDTHS), first(part, HEADS)
    if hidden is None:
        return None
    if heads is None:
        return Widths(hidden[1], 1, hidden[1], least, 1, least)
    given = read(part, "head_dim")
    head = given if isinstance(given, int) and given > 0 else max(1, hidden[1] // heads[1])
    new_heads = min(4, heads[1])
    new_head = max(16, least // new_heads)
    while not _rotates(part, head, new_head):
        new_head *= 2
    wider = head * heads[1] > hidden[1]  # attention is wider than the model, as in Gemma
    return Widths(hidden[1], heads[1], head, least if wider else max(least, new_heads * new_head), new_heads,
                  2 * new_head if wider else new_head)  # fmt: skip


def _rotates(part: Any, head: int, new_head: int) -> bool:
    """Whether rotary positions can be scaled to a new size of heads: an even number, and something of each axis."""
    for rope in _ropes(part):
        share = rope.get("partial_rotary_factor") or read(part, "partial_rotary_factor") or 1.0
        if int(new_head * share) % 2 or int(new_head * share) < 2:
            return False
        if (section := rope.get("mrope_section")) and sum(section) * new_head // head < len(section):
            return False
    return True


def _set_heads(part: Any, widths: Widths) -> None:
    """Heads, and key heads in the same sort of ratio: one for all, some for each group, or one each."""
    latent = read(part, "qk_rope_head_dim") is not None
    for name in KEY_HEADS:
        value = read(part, name)
        if isinstance(value, int) and value > 0:
            grouped = 1 if value == 1 else max(1, widths.new_heads // 2)
            put(part, name, widths.new_heads if value == widths.heads or latent else grouped)
    for name in HEADS:
        if first(part, (name,)):
            put(part, name, widths.new_heads)
    for name in ("head_dim", "global_head_dim", "attention_head_dim", "kv_channels", "swa_head_dim"):
        if isinstance(read(part, name), int) or (name == "head_dim" and name in dir(part)):
            put(part, name, min(8, read(part, "qk_rope_head_dim") or 8) if latent else widths.new_head)
    if read(part, "attention_head_dim") and read(part, "attention_hidden_size"):  # Zamba 2
        put(part, "attention_head_dim", part.attention_hidden_size // widths.new_heads)
    if isinstance(rotary := read(part, "rotary_dim"), int):
        put(part, "rotary_dim", max(2, rotary * widths.new_head // widths.head // 2 * 2))


def _fit_states(part: Any, widths: Widths) -> None:
    """State spaces: heads times their size are the inner width, which groups divide."""
    if isinstance(read(part, "time_step_rank"), int):
        put(part, "time_step_rank", max(1, widths.new_hidden // 16))
    if isinstance(read(part, "mamba_dt_rank"), int):
        put(part, "mamba_dt_rank", max(1, widths.new_hidden // 16))
    expand = next(
        (found for name in ("mamba_expand", "expand") if isinstance(found := read(part, name), int | float)), 2
    )
    inner = int(expand * widths.new_hidden)
    for name in ("mamba_d_ssm", "mamba_intermediate_size"):
        if isinstance(read(part, name), int):
            put(part, name, inner)
    for count, size in STATE_HEADS:
        if isinstance(read(part, count), int):
            put(part, count, inner // 16)
            put(part, size, 16)
    for name in ("n_groups", "mamba_n_groups", "mamba_ngroups"):
        if isinstance(value := read(part, name), int):
            put(part, name, min(value, 2))
    if isinstance(read(part, "linear_num_value_heads"), int):
        sizes = {
            "linear_num_value_heads": 4,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 16,
            "linear_value_head_dim": 16,
        }
        for name, value in sizes.items():
            put(part, name, value)
    if (
        first(part, ("state_size",))
        and read(part, "num_heads")
        and read(part, "head_dim")
        and not read(part, "num_key_value_heads")
    ):
        put(part, "num_heads", inner // 16)  # Mamba 2
        put(part, "head_dim", 16)


STATE_HEADS = (
    ("mamba_n_heads", "mamba_d_head"),
    ("mamba_num_heads", "mamba_head_dim"),
    ("n_mamba_heads", "mamba_headdim"),
)


def _ropes(part: Any) -> list[dict[str, Any]]:
    """The parameters of rotary positions, one for each kind of layer where these differ."""
    found = read(part, "rope_parameters") or read(part, "rope_scaling")
    if not isinstance(found, dict):
        return []
    inner = [one for one in found.values() if isinstance(one, dict)]
    return inner or [found]


def _fit_positions(part: Any, widths: Widths) -> None:
    for rope in _ropes(part):
        share = rope.get("partial_rotary_factor") or read(part, "partial_rotary_factor") or 1.0
        half = int(widths.new_head * share) // 2
        for name in ("long_factor", "short_factor"):
            if name in rope:
                rope[name] = list(rope[name][:half])
        if section := rope.get("mrope_section"):
            rope["mrope_section"] = shared_out(sum(section) * widths.new_head // widths.head, section)


def shared_out(total: int, parts: Sequence[int]) -> list[int]:
    """A whole number in about the ratio of ``parts``, at least one for each."""
    made = [max(1, total * part // sum(parts)) for part in parts]
    made[made.index(max(made))] += total - sum(made)
    return made


def _fit_to_text(part: Any, before: int, after: int) -> None:
    names = OF_TEXT if read(part, "embed_dim") is not None else tuple(name for name in OF_TEXT if name != "hidden_size")
    for name in names:
        if isinstance(read(part, name), int):
            put(part, name, after)
