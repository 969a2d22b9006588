"""Scaled positions against the formulas of the papers, written naively here, and through transformers' own models."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest
import torch
from ftk import ModelError
from ftk.opening import open_run
from ftk.testing import check_plugin
from ftk.testing.runs import plan_in
from ftk_rope_scaling.scaling import scale
from transformers import AutoConfig, AutoModelForCausalLM, Gemma3TextConfig, GPT2Config, LlamaConfig


def test_the_plugin_keeps_the_contract():
    check_plugin("rope-scaling")


def asked(formula: str, cutoff_len: int = 2048, factor: float | None = None):
    """A run that asks for a scaling."""
    options = SimpleNamespace(rope_scaling=formula, rope_scaling_factor=factor)
    plan = SimpleNamespace(
        where=lambda key: f"run.yaml:3: {key}: {formula}", registry=SimpleNamespace(options={"cutoff_len": None})
    )
    return SimpleNamespace(options=lambda _: options, plan=plan, value={"cutoff_len": cutoff_len}.__getitem__)


def llama(**more) -> LlamaConfig:
    return LlamaConfig(
        hidden_size=64, num_attention_heads=4, num_hidden_layers=1, intermediate_size=64, vocab_size=32,
        max_position_embeddings=512, **more,
    )  # fmt: skip


def frequencies(config, length: int = 16) -> torch.Tensor:
    """What the model multiplies positions with, after it has seen a text of this length."""
    model = AutoModelForCausalLM.from_config(config)
    rotary = model.model.rotary_emb
    rotary(torch.zeros(1, length, 64), torch.arange(length)[None])
    return rotary.inv_freq


BASE = 10_000.0 ** -(torch.arange(0, 16, 2) / 16)


def test_linear_divides_every_frequency_by_the_factor():
    torch.testing.assert_close(frequencies(scale(llama(), asked("linear"))), BASE / 4)


def test_dynamic_leaves_short_texts_alone_and_grows_the_base_with_long_ones():
    config = scale(llama(), asked("dynamic"))
    torch.testing.assert_close(frequencies(config), BASE)
    base = 10_000 * (4 * 1024 / 512 - 3) ** (16 / 14)
    torch.testing.assert_close(frequencies(config, 1024), base ** -(torch.arange(0, 16, 2) / 16))


def test_yarn_mixes_by_the_ramp_of_the_paper():
    """Peng et al. 2023, eq. 17 to 23, with alpha 1 and beta 32, the ramp over dimensions as the authors round it."""
    scaled = frequencies(scale(llama(), asked("yarn")))

    def dimension(rotations):
        return 16 * math.log(512 / (rotations * 2 * math.pi)) / (2 * math.log(10_000))

    low, high = max(math.floor(dimension(32)), 0), min(math.ceil(dimension(1)), 15)
    ramp = ((torch.arange(8) - low) / (high - low)).clamp(0, 1)
    torch.testing.assert_close(scaled, BASE / 4 * ramp + BASE * (1 - ramp))


def test_llama3_keeps_short_waves_and_stretches_long_ones():
    scaled = frequencies(scale(llama(), asked("llama3")))
    for before, after in zip(BASE.tolist(), scaled.tolist(), strict=True):
        wave = 2 * math.pi / before
        smooth = min(max((512 / wave - 1) / (4 - 1), 0), 1)
        assert after == pytest.approx((1 - smooth) * before / 4 + smooth * before, rel=1e-5)


@pytest.mark.parametrize("formula", ["linear", "yarn", "llama3", "dynamic"])
def test_a_saved_result_is_not_scaled_again(formula, tmp_path):
    scale(llama(), asked(formula)).save_pretrained(tmp_path)
    before = json.loads((tmp_path / "config.json").read_text())
    scale(AutoConfig.from_pretrained(tmp_path), asked(formula)).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text()) == before
    assert before["rope_parameters"]["factor"] == 4


def test_the_factor_is_relative_to_the_original_context():
    config = scale(llama(), asked("linear", 1024))
    assert config.rope_parameters["factor"] == 2
    config = scale(config, asked("yarn", 4096))
    assert config.rope_parameters["factor"] == 8
    assert config.rope_parameters["original_max_position_embeddings"] == 512
    assert config.max_position_embeddings == 4096


def test_a_given_factor_is_taken():
    config = scale(llama(), asked("yarn", 128, 3.5))
    assert config.rope_parameters["factor"] == 3.5
    assert config.max_position_embeddings == 1792


def test_a_context_that_suffices_is_left_alone_and_told(caplog):
    before = llama().to_dict()
    assert scale(llama(), asked("linear", 512)).to_dict() == before
    assert "has no effect: cutoff_len 512 fits the model's context of 512" in caplog.text


def test_layers_with_a_window_keep_their_positions():
    config = scale(Gemma3TextConfig(max_position_embeddings=512), asked("linear"))
    assert config.rope_parameters["full_attention"]["factor"] == 4
    assert config.rope_parameters["sliding_attention"]["rope_type"] == "default"


def test_what_is_no_scaling_stays():
    kept = {"rope_type": "default", "rope_theta": 5e5, "mrope_section": [2, 3, 3]}
    config = scale(llama(rope_parameters=dict(kept)), asked("yarn"))
    assert {key: config.rope_parameters[key] for key in ("rope_theta", "mrope_section")} == {
        "rope_theta": 5e5, "mrope_section": [2, 3, 3],
    }  # fmt: skip


def test_a_model_without_rotary_positions_is_one_line():
    with pytest.raises(ModelError, match="gpt2 models have no rotary positions"):
        scale(GPT2Config(), asked("linear"))


def test_a_run_trains_beyond_the_context_and_its_result_answers_with_the_same_positions(ftk_run, tmp_path):
    finished = ftk_run(
        model_name_or_path="ftk://random/llama?max_position_embeddings=128", cutoff_len=512, rope_scaling="yarn",
        max_steps=1, finetuning_type="full",
    )  # fmt: skip
    config = json.loads((finished.folder / "config.json").read_text())
    assert config["rope_parameters"]["factor"] == 4
    assert config["max_position_embeddings"] == 512
    answering = open_run("chat", finished.folder, []).model(trainable=False)
    assert answering.config.rope_parameters == config["rope_parameters"]


def test_the_base_of_an_adapter_is_scaled_where_it_answers(ftk_run):
    base = "ftk://random/llama?max_position_embeddings=128"
    finished = ftk_run(model_name_or_path=base, cutoff_len=512, rope_scaling="linear", max_steps=1)
    answering = open_run("chat", finished.folder, []).model(trainable=False)
    assert answering.config.rope_parameters["factor"] == 4


def test_a_factor_without_a_formula_is_told(tmp_path):
    notes = plan_in(tmp_path, rope_scaling_factor=2).notes
    assert any("rope_scaling_factor: has no effect" in note for note in notes)
