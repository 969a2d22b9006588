"""Towers, projector and language model of many families.

Reference: the names of modules in transformers' modeling files, grouped as LLaMA-Factory's ``COMPOSITE_MODELS`` and the
authors' fine-tuning scripts group them, written here by hand. Models are made without memory (the meta device), with
the sizes that transformers has as defaults.
"""

import pytest
import torch
import transformers
from ftk_training.parts import Parts, parts_of, under
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForMultimodalLM

QWEN = (("visual.patch_embed", "visual.blocks"), ("visual.merger",), ("language_model", "lm_head"))
LLAVA = (("vision_tower",), ("multi_modal_projector",), ("language_model", "lm_head"))
SEEN = {
    "llava": LLAVA,
    "llava_next": (LLAVA[0], ("multi_modal_projector", "image_newline"), LLAVA[2]),
    "llava_onevision": (LLAVA[0], ("multi_modal_projector", "image_newline"), LLAVA[2]),
    "video_llava": (("video_tower", "image_tower"), *LLAVA[1:]),
    "gemma3": LLAVA,
    "internvl": LLAVA,
    "paligemma": LLAVA,
    "mistral3": LLAVA,
    "got_ocr2": LLAVA,
    "mllama": (("vision_model",), *LLAVA[1:]),
    "llama4": (("vision_model",), ("multi_modal_projector",), ("language_model",)),
    "idefics2": (("vision_model",), ("connector",), ("text_model", "lm_head")),
    "qwen2_vl": QWEN,
    "qwen2_5_vl": QWEN,
    "qwen3_vl": (
        ("visual.patch_embed", "visual.pos_embed", "visual.blocks", "visual.deepstack_merger_list"), *QWEN[1:],
    ),
    "qwen3_5": (("visual.patch_embed", "visual.pos_embed", "visual.blocks"), *QWEN[1:]),
    "glm4v": (
        ("visual.embeddings", "visual.patch_embed", "visual.blocks", "visual.post_conv_layernorm", "visual.downsample",
         "visual.post_layernorm"), *QWEN[1:],
    ),
    "paddleocr_vl": (("visual",), ("projector",), ("language_model", "lm_head")),
    "kimi_k25": (("vision_tower",), ("mm_projector",), ("language_model", "lm_head")),
    "blip-2": (("vision_model",), ("qformer", "language_projection", "query_tokens"), ("language_model",)),
    "qwen2_audio": (("audio_tower",), *LLAVA[1:]),
    "voxtral": (("audio_tower",), *LLAVA[1:]),
    "granite_speech": (("encoder",), ("projector",), ("language_model", "lm_head")),
    "qwen2_5_omni_thinker": (
        ("audio_tower.conv1", "audio_tower.conv2", "audio_tower.audio_bos_eos_token", "audio_tower.layers",
         "audio_tower.ln_post", "visual.patch_embed", "visual.blocks"),
        ("audio_tower.proj", "visual.merger"), ("model", "lm_head"),
    ),
    "idefics": (("vision_model",), (), ("embed_tokens", "layers", "gated_cross_attn_layers", "norm", "lm_head")),
    "fuyu": ((), ("vision_embed_tokens",), ("language_model", "lm_head")),
}  # fmt: skip
WIDTH = {"qwen2_vl": "hidden_size", "qwen2_5_vl": "out_hidden_size", "qwen3_vl": "out_hidden_size",
         "qwen3_5": "out_hidden_size"}  # fmt: skip
"""Families whose defaults do not fit together: the field in which their tower says how wide its output is."""


def made(family):
    config = transformers.CONFIG_MAPPING[family]()
    if family in WIDTH:
        setattr(config.vision_config, WIDTH[family], config.text_config.hidden_size)
    autos = (AutoModelForImageTextToText, AutoModelForMultimodalLM, AutoModelForCausalLM)
    auto = next(one for one in autos if type(config) in one._model_mapping)
    with torch.device("meta"):
        return auto.from_config(config)


@pytest.mark.parametrize("family", sorted(SEEN))
def test_parts_are_those_that_the_family_has(family):
    if family not in transformers.CONFIG_MAPPING:
        pytest.skip(f"transformers {transformers.__version__} has no {family}")
    model = made(family)
    found = parts_of(model)
    short = Parts(*(tuple(name.removeprefix("model.") if family[-7:] != "thinker" else name for name in part)
                    for part in found))  # fmt: skip
    assert [set(part) for part in short] == [set(part) for part in SEEN[family]]
    every = [name for name, _ in model.named_parameters()]
    assert [name for name in every if sum(under(name, part) for part in found) != 1] == []
    assert all(under(name, found.beside_language) != under(name, found.language) for name in every)


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3_text", "llama4_text", "gpt2", "mixtral", "bart"])
def test_a_model_that_only_reads_text_has_no_parts(family):
    assert parts_of(made(family)) == Parts()


def test_gemma_4_has_what_its_config_names():
    """Its towers are optional; without them it only reads text."""
    if "gemma4" not in transformers.CONFIG_MAPPING:
        pytest.skip(f"transformers {transformers.__version__} has no gemma4")
    assert parts_of(made("gemma4")) == Parts()
    towers = {"vision_config": transformers.Gemma4VisionConfig(), "audio_config": transformers.Gemma4AudioConfig()}
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(transformers.Gemma4Config(**towers))
    assert parts_of(model) == Parts(
        ("model.vision_tower", "model.audio_tower"), ("model.embed_vision", "model.embed_audio"),
        ("model.language_model", "lm_head"),
    )  # fmt: skip


def test_names_are_matched_part_by_part():
    assert under("model.visual.merger.0", ("model.visual",))
    assert under("model.visual", ("model.visual",))
    assert not under("model.visuals", ("model.visual",))
    assert not under("model.visual", ())
