"""Which weights learn, against names of modules written down by hand from transformers' modeling files.

The references for what shall learn are LLaMA-Factory's documented defaults (tower and projector frozen, the language
model not) and its rule for LoRA's ``all`` (every linear layer but the output layer, none in frozen parts). Small random
models of each family; LLaVA and Qwen2-VL are trained for a step on an image, to see that what learns moves and nothing
else does.
"""

import itertools
import json
import shutil

import pytest
import torch
import transformers
from ftk import ConfigError, ModelError
from ftk.opening import open_run
from ftk.registry import Registry
from ftk.run import Run
from ftk.testing import check_plugin
from ftk.testing.runs import plan_in
from ftk_training import TrainingOptions, fitting
from ftk_training.parts import parts_of
from torch import nn
from transformers import AutoModelForImageTextToText, AutoModelForMultimodalLM

TEXT = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 512}  # fmt: skip
CLIP = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32,
        "patch_size": 8, "projection_dim": 32}  # fmt: skip
MROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}}
QWEN2 = {"depth": 2, "embed_dim": 32, "num_heads": 2, "hidden_size": 64, "patch_size": 4, "mlp_ratio": 2}
QWEN3 = {"depth": 2, "hidden_size": 32, "num_heads": 2, "intermediate_size": 48, "out_hidden_size": 64, "patch_size": 4,
         "num_position_embeddings": 16, "deepstack_visual_indexes": [0]}  # fmt: skip
QWEN25 = {"depth": 2, "hidden_size": 32, "num_heads": 2, "intermediate_size": 48, "out_hidden_size": 64,
          "patch_size": 4, "window_size": 16, "fullatt_block_indexes": [1]}  # fmt: skip
MLLAMA = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_global_layers": 1, "image_size": 32,
          "attention_heads": 2, "patch_size": 8, "vision_output_dim": 64,
          "intermediate_layers_indices": [0]}  # fmt: skip
AUDIO = {"d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 48, "num_mel_bins": 8,
         "max_source_positions": 16}  # fmt: skip
LAST = ("language_model", "lm_head")
FAMILIES = {
    "llava": ("vision_config", CLIP, {}, ("vision_tower",), ("multi_modal_projector",), LAST),
    "llava pixtral": (
        "vision_config", {**CLIP, "model_type": "pixtral", "head_dim": 16}, {}, ("vision_tower",),
        ("multi_modal_projector",), LAST,
    ),
    "llava_next": ("vision_config", CLIP, {}, ("vision_tower",), ("multi_modal_projector", "image_newline"), LAST),
    "mistral3": ("vision_config", {**CLIP, "head_dim": 16}, {}, ("vision_tower",), ("multi_modal_projector",), LAST),
    "mllama": (
        "vision_config", MLLAMA, {"cross_attention_layers": [1], "rope_parameters": {"rope_type": "default"}},
        ("vision_model",), ("multi_modal_projector",), LAST,
    ),
    "qwen2_5_vl": ("vision_config", QWEN25, MROPE, ("visual.patch_embed", "visual.blocks"), ("visual.merger",), LAST),
    "llava_onevision": ("vision_config", CLIP, {}, ("vision_tower",), ("multi_modal_projector", "image_newline"), LAST),
    "gemma3": ("vision_config", CLIP, {}, ("vision_tower",), ("multi_modal_projector",), LAST),
    "paligemma": ("vision_config", CLIP, {}, ("vision_tower",), ("multi_modal_projector",), LAST),
    "internvl": (
        "vision_config", {**CLIP, "image_size": [32, 32], "patch_size": [8, 8]}, {}, ("vision_tower",),
        ("multi_modal_projector",), LAST,
    ),
    "idefics3": ("vision_config", CLIP, {}, ("vision_model",), ("connector",), ("text_model", "lm_head")),
    "qwen2_vl": ("vision_config", QWEN2, MROPE, ("visual.patch_embed", "visual.blocks"), ("visual.merger",), LAST),
    "qwen3_vl": (
        "vision_config", QWEN3, MROPE,
        ("visual.patch_embed", "visual.pos_embed", "visual.blocks", "visual.deepstack_merger_list"), ("visual.merger",),
        LAST,
    ),
    "qwen2_audio": ("audio_config", AUDIO, {}, ("audio_tower",), ("multi_modal_projector",), LAST),
}  # fmt: skip
KEYS = ("freeze_vision_tower", "freeze_multi_modal_projector", "freeze_language_model")
CHOICES = [choice for choice in itertools.product((True, False), repeat=3) if not all(choice)]
CASES = [(family, choice) for family in sorted(FAMILIES) for choice in CHOICES
         if family in ("llava", "qwen2_vl") or choice in ((False, True, True), (True, False, True))]  # fmt: skip
"""All choices for two families; for each of the others the tower alone and the projector alone."""
ADAPTERS = [one for one in ("full", "lora", "freeze") if one in Registry.discover().specs("adapter")]


def made(family):
    """A small random model."""
    side, tower, text, *_ = FAMILIES[family]
    kind = transformers.CONFIG_MAPPING[family.partition(" ")[0]]
    plain = kind()
    words = {"vocab_size": 2600, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    inner = {key: value for key, value in plain.text_config.to_dict().items() if key != "layer_types"}
    changed = {
        "text_config": {**inner, **TEXT, **text, **words},
        side: {**getattr(plain, side).to_dict(), **tower},
    }
    config = kind(**changed, image_token_id=2560, video_token_id=2561)
    torch.manual_seed(0)
    auto = AutoModelForImageTextToText if side == "vision_config" else AutoModelForMultimodalLM
    return auto.from_config(config)


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory):
    """``folder_of(family)``: a model's files, with the tokenizer of tiny-chat."""
    tokenizer = open_run("chat", None, ["--model_name_or_path", "ftk://tiny-chat"]).tokenizer
    folder = tmp_path_factory.mktemp("models")

    def folder_of(family):
        if not (folder / family).exists():
            made(family).save_pretrained(folder / family)
            tokenizer.save_pretrained(folder / family)
        return str(folder / family)

    return folder_of


@pytest.fixture
def model_of(folder_of, tmp_path):
    """``model_of(family, **options)``: the model of a training run, which may learn."""

    def model_of(family, **options):
        run = Run(plan_in(tmp_path, model_name_or_path=folder_of(family), **options))
        return run.model(trainable=True)

    return model_of


def plain(name):
    """The name of a weight without what peft and transformers put in front."""
    name = name.removeprefix("base_model.model.").removeprefix("model.")
    return name.replace(".base_layer.", ".").partition(".lora_")[0]


def under(name, tops):
    return any(name == top or name.startswith(f"{top}.") for top in tops)


def learning(model):
    return {plain(name) for name, one in model.named_parameters() if one.requires_grad}


def test_the_plugin_keeps_the_contract():
    assert check_plugin("vlm")


# What learns


@pytest.mark.parametrize(("family", "frozen"), CASES, ids=str)
def test_in_full_tuning_the_parts_learn_that_are_not_frozen(model_of, family, frozen):
    *_, tower, projector, language = FAMILIES[family]
    model = model_of(family, finetuning_type="full", **dict(zip(KEYS, frozen, strict=True)))
    free = [top for part, held in zip((tower, projector, language), frozen, strict=True) if not held for top in part]
    every = {plain(name) for name, _ in model.named_parameters()}
    assert learning(model) == {name for name in every if under(name, free)}
    assert learning(model)


@pytest.mark.parametrize(("family", "frozen"), CASES, ids=str)
def test_with_lora_all_is_every_linear_layer_of_the_parts_that_are_not_frozen(model_of, family, frozen):
    *_, tower, projector, language = FAMILIES[family]
    free = [top for part, held in zip((tower, projector, language), frozen, strict=True) if not held for top in part]
    linear = {plain(name) for name, one in made(family).named_modules() if isinstance(one, nn.Linear)} - {"lm_head"}
    wanted = {name for name in linear if under(name, free)}
    settings = {"finetuning_type": "lora", **dict(zip(KEYS, frozen, strict=True))}
    if not wanted:  # a projector may have no linear layer
        with pytest.raises(ModelError, match="may learn"):
            model_of(family, **settings)
        return
    model = model_of(family, **settings)
    assert learning(model) == wanted
    assert all(".lora_" in name for name, one in model.named_parameters() if one.requires_grad)


@pytest.mark.skipif("freeze" not in ADAPTERS, reason="ftk-freeze is not installed")
@pytest.mark.parametrize("frozen", CHOICES, ids=str)
@pytest.mark.parametrize("family", ["llava", "qwen2_vl", "gemma3"])
def test_with_freeze_the_last_layer_learns_and_the_parts_beside_it_that_are_not_frozen(model_of, family, frozen):
    *_, tower, projector, _ = FAMILIES[family]
    settings = {"finetuning_type": "freeze", "freeze_trainable_layers": 1, **dict(zip(KEYS, frozen, strict=True))}
    model = model_of(family, **settings)
    layer = ("language_model.layers.1",)
    free = [top for part, held in zip((tower, projector, layer), frozen, strict=True) if not held for top in part]
    assert learning(model) == {name for name in map(plain, dict(model.named_parameters())) if under(name, free)}


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_without_a_word_the_language_model_alone_learns(model_of, family):
    language = FAMILIES[family][-1]
    for kind in Registry.discover().specs("adapter") if family == "llava" else ADAPTERS:
        found = learning(model_of(family, finetuning_type=kind))
        assert found
        assert all(under(name, language) for name in found), kind


@pytest.mark.parametrize("kind", ADAPTERS)
def test_a_text_model_is_left_alone_without_a_word(tmp_path, kind, caplog, capsys):
    found = []
    for settings in ({}, dict.fromkeys(KEYS[:2], False)):
        run = Run(plan_in(tmp_path, model_name_or_path="ftk://random/llama", finetuning_type=kind, **settings))
        found.append({name for name, one in run.model(trainable=True).named_parameters() if one.requires_grad})
        notes = [*run.plan.notes, *(one.getMessage() for one in caplog.records if "freeze_" in one.getMessage())]
        assert len(notes) == len(settings)
    assert found[0] == found[1]
    assert "the test: freeze_vision_tower: False has no effect, the model only reads text" in caplog.text


def test_a_command_that_only_answers_looks_at_nothing(folder_of, monkeypatch):
    monkeypatch.setattr("ftk_vlm.freezing.parts_of", lambda model: pytest.fail("looked at"))
    run = open_run("chat", None, ["--model_name_or_path", folder_of("llava"), "--freeze_vision_tower", "false"])
    assert run.model(trainable=False)


# Steps


def llava_inputs(model):
    ids_BT = torch.tensor([[5, 6, *[2560] * 16, 7, 8, 9]])
    return {"input_ids": ids_BT, "labels": ids_BT.where(ids_BT != 2560, -100), "pixel_values": torch.rand(1, 3, 32, 32)}


def qwen2_vl_inputs(model):
    """One picture of 4 x 4 patches of 4 x 4 pixels in two frames, which become four tokens."""
    ids_BT = torch.tensor([[5, 6, *[2560] * 4, 7, 8, 9]])
    return {
        "input_ids": ids_BT, "labels": ids_BT.where(ids_BT != 2560, -100),
        "pixel_values": torch.rand(16, 3 * 2 * 4 * 4), "image_grid_thw": torch.tensor([[1, 4, 4]]),
        "mm_token_type_ids": (ids_BT == 2560).int(),
    }  # fmt: skip


INPUTS = {"llava": llava_inputs, "qwen2_vl": qwen2_vl_inputs, "qwen3_vl": qwen2_vl_inputs}


@pytest.mark.parametrize("frozen", [(True, True, False), (False, True, False), (True, False, True)], ids=str)
@pytest.mark.parametrize("kind", ADAPTERS)
@pytest.mark.parametrize("family", sorted(INPUTS))
def test_a_step_moves_what_learns_and_nothing_else(model_of, family, kind, frozen):
    """LLaVA does not use the last layer of its tower, so not everything that learns moves there."""
    *_, tower, projector, language = FAMILIES[family]
    model = model_of(family, finetuning_type=kind, **dict(zip(KEYS, frozen, strict=True))).train()
    before = {name: one.detach().clone() for name, one in model.named_parameters()}
    learns = {name for name, one in model.named_parameters() if one.requires_grad}
    for _ in range(2):  # LoRA's A moves once B is no longer zero
        optimizer = torch.optim.SGD([one for one in model.parameters() if one.requires_grad], lr=1.0)
        torch.manual_seed(1)
        model(**INPUTS[family](model), use_cache=False).loss.backward()
        optimizer.step()
        model.zero_grad()
    moved = {name for name, one in model.named_parameters() if not torch.equal(one, before[name])}
    assert moved <= learns
    parts = [part for part, held in zip((tower, projector, language), frozen, strict=True) if not held]
    assert all(any(under(plain(name), part) for name in moved) for part in parts)
    unmoved = [name for name in learns - moved if "tower.encoder.layers.1" not in name and "post_layernorm" not in name]
    assert [name for name in unmoved if not name.endswith("k_proj.bias")] == []


@pytest.mark.parametrize("kind", ["lora", "full"])
@pytest.mark.parametrize("family", sorted(INPUTS))
def test_reentrant_checkpointing_loses_no_gradient_of_a_tower(folder_of, tmp_path, family, kind):
    """Nothing that enters the first block of a tower with LoRA needs a gradient of itself."""
    found = []
    for wanted in (False, True):
        settings = {"finetuning_type": kind, "freeze_vision_tower": False, "gradient_checkpointing": wanted}
        run = Run(plan_in(tmp_path, model_name_or_path=folder_of(family), **settings))
        model = run.model(trainable=True).train()
        torch.manual_seed(1)
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                nn.init.normal_(parameter, std=0.1)
        fitting._let_through(model, run.options(TrainingOptions))
        if wanted:
            model.gradient_checkpointing_enable({"use_reentrant": True})
        torch.manual_seed(2)
        model(**INPUTS[family](model), use_cache=False).loss.backward()
        found.append({name: one.grad for name, one in model.named_parameters() if one.grad is not None})
    plain, checkpointed = found
    assert plain.keys() == checkpointed.keys()
    assert any(".blocks." in name or "vision_tower" in name for name in plain)
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, msg=name)


def test_a_run_that_trains_the_tower_is_continued_and_opened_as_a_whole(ftk_run, tmp_path):
    """``ftk run`` with LoRA on tower and language model, on text alone; its result answers like the trained model."""
    (tmp_path / "rows.json").write_text(json.dumps([{"instruction": "Hello", "output": "Hi there."}] * 4))
    settings = {"model_name_or_path": "ftk://random/llava", "dataset": str(tmp_path / "rows.json"), "max_steps": 2,
                "finetuning_type": "lora", "freeze_vision_tower": False}  # fmt: skip
    finished = ftk_run(**settings)
    config = json.loads((finished.folder / "adapter_config.json").read_text())
    assert finished.record["options"]["freeze_vision_tower"] is False
    run = open_run("chat", str(finished.folder))
    assert parts_of(run.model(trainable=False)).towers == ("model.vision_tower",)
    assert config["peft_type"] == "LORA"
    shutil.rmtree(finished.folder)


# Refusals


def test_a_run_in_which_nothing_could_learn_is_refused_before_anything_is_loaded(tmp_path):
    with pytest.raises(ConfigError, match=r"freeze_language_model: with freeze_vision_tower and .* nothing is left"):
        plan_in(tmp_path, model_name_or_path="nowhere", freeze_language_model=True)


def test_a_frozen_module_that_is_asked_for_by_name_is_an_error(model_of):
    with pytest.raises(ModelError, match="linear_1 may not learn: freeze_multi_modal_projector: true"):
        model_of("llava", finetuning_type="lora", lora_target="q_proj,linear_1")
    named = model_of("llava", finetuning_type="lora", lora_target="q_proj,linear_1", freeze_multi_modal_projector=False)
    assert "multi_modal_projector.linear_1" in learning(named)
    assert not any("vision_tower" in name for name in learning(named))
