"""Freezing against names of parameters that are written out here, and the formula of what a count means:
n > 0 the last n layers, n < 0 the first -n (LLaMA-Factory's documentation of the keys)."""

import pytest
import torch
from ftk import ModelError
from ftk.errors import ConfigError
from ftk.run import Run
from ftk.testing import check_plugin
from ftk.testing.runs import plan_in
from ftk_training.learning import free, keep

FOUR = "ftk://random/llama?num_hidden_layers=4"


def make(tmp_path, model=FOUR, **settings):
    return Run(plan_in(tmp_path, model_name_or_path=model, finetuning_type="freeze", **settings))


def learning(run):
    return {name for name, parameter in run.model(trainable=True).named_parameters() if parameter.requires_grad}


def layers_in(names):
    return sorted({int(name.split(".")[2]) for name in names if name.startswith("model.layers.")})


def test_the_plugin_keeps_the_contract():
    assert check_plugin("freeze")


@pytest.mark.parametrize(
    ("count", "wanted"), [(2, [2, 3]), (1, [3]), (-1, [0]), (-3, [0, 1, 2]), (9, [0, 1, 2, 3]), (-9, [0, 1, 2, 3])]
)
def test_a_count_is_of_the_last_layers_a_negative_one_of_the_first(tmp_path, count, wanted):
    names = learning(make(tmp_path, freeze_trainable_layers=count))
    assert layers_in(names) == wanted
    assert all(name.startswith("model.layers.") for name in names)
    assert len(names) == 9 * len(wanted)


def test_the_default_is_the_last_two_layers(tmp_path):
    assert layers_in(learning(make(tmp_path))) == [2, 3]


def test_modules_are_those_of_the_chosen_layers_alone(tmp_path):
    names = learning(make(tmp_path, freeze_trainable_layers=1, freeze_trainable_modules="mlp,q_proj"))
    kinds = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", "self_attn.q_proj")
    assert names == {f"model.layers.3.{kind}.weight" for kind in kinds}


def test_a_name_is_a_whole_name(tmp_path):
    """OPT has self_attn beside self_attn_layer_norm."""
    names = learning(
        make(tmp_path, "ftk://random/opt", freeze_trainable_layers=1, freeze_trainable_modules="self_attn")
    )
    assert names
    assert all(".self_attn." in name for name in names)


def test_extra_modules_stand_outside_of_the_layers(tmp_path):
    names = learning(make(tmp_path, freeze_trainable_layers=0, freeze_extra_modules="norm,lm_head"))
    assert names == {"model.norm.weight", "lm_head.weight"}


def test_a_shared_output_layer_learns_with_the_embeddings(tmp_path):
    run = make(
        tmp_path, f"{FOUR}&tie_word_embeddings=true", freeze_trainable_layers=0, freeze_extra_modules="lm_head"
    )  # fmt: skip
    model = run.model(trainable=True)
    assert model.lm_head.weight.requires_grad
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"freeze_trainable_modules": "q_projj"}, "the layers have no q_projj. Did you mean q_proj? There is"),
        ({"freeze_extra_modules": "lmhead"}, "outside of the layers there is no lmhead. Did you mean lm_head?"),
        ({"freeze_extra_modules": "q_proj"}, "outside of the layers there is no q_proj."),
        ({"freeze_trainable_layers": 0}, "no weight is left that learns"),
    ],
)
def test_a_wrong_setting_is_one_line(tmp_path, settings, said):
    with pytest.raises(ModelError) as error:
        make(tmp_path, **settings).model(trainable=True)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_an_adapter_is_refused(tmp_path):
    """Quantised models are, too: the quantisers' own tests show it."""
    with pytest.raises(ConfigError, match="adapter:freeze and adapter_name_or_path exclude each other"):
        make(tmp_path, adapter_name_or_path="some/adapter")


@pytest.mark.parametrize(
    ("settings", "learns", "rests"),
    [
        ({}, torch.float32, torch.float32),
        ({"bf16": True}, torch.float32, torch.bfloat16),
        ({"pure_bf16": True}, torch.bfloat16, torch.bfloat16),
    ],
)
def test_what_learns_is_float32_unless_pure_bf16(tmp_path, settings, learns, rests):
    model = make(tmp_path, f"{FOUR}&dtype=bfloat16", **settings).model(trainable=True)
    assert {one.dtype for one in model.parameters() if one.requires_grad} == {learns}
    assert {one.dtype for one in model.parameters() if not one.requires_grad} == {rests}


def test_a_model_that_answers_is_left_as_it_was_loaded(tmp_path):
    model = make(tmp_path, f"{FOUR}&dtype=bfloat16").model(trainable=False)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_what_a_patch_keeps_does_not_learn_and_is_not_counted(tmp_path):
    run = make(tmp_path, freeze_trainable_layers=2)
    keep(run, ["model.layers.3", "model.layers.1", "model.layers.2.mlp"], "a patch")
    names = learning(run)
    assert layers_in(names) == [0, 2]
    assert {name for name in names if ".mlp." in name} == {
        f"model.layers.0.mlp.{one}_proj.weight" for one in ("gate", "up", "down")
    }


def test_what_a_patch_frees_learns(tmp_path):
    run = make(tmp_path, freeze_trainable_layers=1)
    free(run, ["model.norm"], "a patch")
    assert "model.norm.weight" in learning(run)
    run = make(tmp_path, freeze_extra_modules="norm")
    keep(run, ["model.norm"], "freeze_norm: true")
    with pytest.raises(ModelError, match="norm may not learn: freeze_norm: true"):
        run.model(trainable=True)


@pytest.mark.parametrize("family", ["llama", "qwen3_moe", "llava"])
def test_a_run_is_saved_loaded_and_resumed_exactly(prove, family):
    done = prove(model_name_or_path=f"ftk://random/{family}", finetuning_type="freeze", freeze_trainable_layers=1)
    names = {name for name, one in done.model.named_parameters() if one.requires_grad}
    assert names
    assert all(".layers.1." in name and "vision" not in name for name in names)
