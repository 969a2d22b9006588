"""Small configs against those that they were made of: what the code of a family branches on is the same.

All families that transformers has: ``python tests/e2e/shrinking.py``.
"""

import copy

import pytest
import torch
from ftk_verify.shrinking import shared_out, shrunk
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForImageTextToText

FAMILIES = (
    "llama", "qwen2", "qwen3", "gemma2", "gemma3_text", "gemma4_text", "phi", "phi3", "falcon", "gpt2",
    "smollm3", "mixtral", "qwen3_moe", "deepseek_v3", "gpt_oss", "mamba", "mamba2", "falcon_h1", "jamba", "lfm2",
    "qwen3_next", "minicpm3",
)  # fmt: skip
SEEING = ("llava", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "internvl")
AXES = {key: [16, 24, 24] for key in ("qwen2_vl", "qwen2_5_vl")}
FEW_WORDS = 300


def published(family):
    """The config of a family at its published size, with few words, which the test needs to be quick."""
    config = CONFIG_MAPPING[family]()
    text = config.get_text_config(decoder=True)
    for part in (config, text):
        if hasattr(part, "vocab_size"):
            part.vocab_size = FEW_WORDS
        for name in ("vocab_size_per_layer_input", "pad_token_id", "bos_token_id", "eos_token_id"):
            if getattr(part, name, None) is not None:
                setattr(part, name, FEW_WORDS if name.startswith("vocab") else 1)
    if family in AXES:  # the class does without, published models do not
        text.rope_parameters = {**text.rope_parameters, "mrope_section": AXES[family]}
    return config


@pytest.mark.parametrize("family", [*FAMILIES, *SEEING])
def test_a_small_model_learns_and_is_the_same_architecture(family):
    config = published(family)
    before = copy.deepcopy(config.to_dict())
    small = shrunk(config)
    assert config.to_dict() == before
    auto = AutoModelForImageTextToText if family in SEEING else AutoModelForCausalLM
    with torch.device("meta"):
        large, size = auto.from_config(config), auto.from_config(small).num_parameters()
    model = auto.from_config(type(small).from_dict(small.to_dict()))
    assert type(model) is type(large)
    assert size < large.num_parameters() / 50
    loss = model(input_ids=torch.arange(3, 27)[None], labels=torch.arange(3, 27)[None]).loss
    loss.backward()
    assert torch.isfinite(loss)
    kinds = {type(module) for module in large.modules()}
    assert {type(module) for module in model.modules()} == kinds


@pytest.mark.parametrize(("heads", "key_heads", "wanted"), [(32, 32, 4), (32, 8, 2), (71, 1, 1), (2, 2, 2)])
def test_heads_keep_their_sort_of_ratio(heads, key_heads, wanted):
    config = CONFIG_MAPPING["llama"](hidden_size=64 * heads, num_attention_heads=heads, num_key_value_heads=key_heads)
    small = shrunk(config)
    assert (small.num_attention_heads, small.num_key_value_heads) == (min(4, heads), wanted)
    assert small.hidden_size == small.num_attention_heads * small.head_dim


def test_words_ties_and_positions_stay():
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "long_factor": [1.0] * 48, "short_factor": [2.0] * 48,
            "original_max_position_embeddings": 4096}  # fmt: skip
    config = CONFIG_MAPPING["phi3"](tie_word_embeddings=True, rope_parameters=rope)
    small = shrunk(config)
    assert (small.vocab_size, small.tie_word_embeddings) == (config.vocab_size, True)
    assert small.rope_parameters["rope_type"] == "longrope"
    assert len(small.rope_parameters["long_factor"]) == small.hidden_size // small.num_attention_heads // 2


def test_a_layer_of_each_kind_is_left():
    kinds = ["sliding_attention"] * 5 + ["full_attention"]
    small = shrunk(CONFIG_MAPPING["gemma3_text"](num_hidden_layers=12, layer_types=kinds * 2))
    assert small.layer_types == ["sliding_attention", "full_attention"]
    assert small.num_hidden_layers == 2


def test_ranks_ask_for_wider_models():
    assert shrunk(CONFIG_MAPPING["llama"](), least=512).hidden_size == 512


@pytest.mark.parametrize(("total", "parts"), [(8, [16, 24, 24]), (4, [11, 11, 10]), (16, [16, 24, 24])])
def test_axes_of_positions_are_shared_out(total, parts):
    made = shared_out(total, parts)
    assert sum(made) == total
    assert min(made) >= 1
