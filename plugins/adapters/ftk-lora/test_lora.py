"""LoRA against the formulas of Hu et al. 2021 (eq. 3) and Kalajdzievski 2023 (eq. 9), written out with torch alone."""

import json

import pytest
import torch
from ftk import ModelError
from ftk.errors import ConfigError
from ftk.opening import open_run
from ftk.run import Run
from ftk.testing import check_plugin
from ftk.testing.runs import plan_in
from ftk_peft.targets import find_targets, linear_modules

IDS_BT = torch.tensor([[5, 6, 7, 8, 9]])


def make(tmp_path, family="llama", **settings):
    return Run(
        plan_in(tmp_path, **{"model_name_or_path": f"ftk://random/{family}", "finetuning_type": "lora", **settings})
    )


def shake(model):
    """Give every B matrix values, as training would; a new one is zero."""
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def logits(model):
    with torch.no_grad():
        return model.eval()(IDS_BT, use_cache=False).logits


def saved(tmp_path, name, **settings):
    """The folder of an adapter with values, and its model's logits."""
    model = shake(make(tmp_path, **settings).model(trainable=True))
    model.save_pretrained(tmp_path / name)
    return str(tmp_path / name), logits(model)


def test_the_plugin_keeps_the_contract():
    assert check_plugin("lora")


@pytest.mark.parametrize(("rslora", "scale"), [(False, 12 / 4), (True, 12 / 4**0.5)])
def test_a_layer_computes_wx_plus_scaled_bax(tmp_path, rslora, scale):
    model = shake(make(tmp_path, lora_rank=4, lora_alpha=12, use_rslora=rslora).model(trainable=True)).eval()
    layer = model.base_model.model.model.layers[1].self_attn.q_proj
    x = torch.randn(3, layer.in_features)
    a, b, w = layer.lora_A["default"].weight, layer.lora_B["default"].weight, layer.base_layer.weight
    torch.testing.assert_close(layer(x), x @ w.T + scale * (x @ a.T @ b.T))


def test_alpha_is_twice_the_rank_unless_given(tmp_path):
    config = make(tmp_path, lora_rank=3).model(trainable=True).peft_config["default"]
    assert (config.r, config.lora_alpha, config.lora_dropout) == (3, 6, 0.0)


def test_a_new_adapter_changes_nothing(tmp_path):
    run = make(tmp_path)
    before = logits(run._loader.load_model(run))
    torch.testing.assert_close(logits(run.model(trainable=True)), before, rtol=0, atol=0)


def test_r_times_in_plus_out_parameters_learn_and_nothing_else(tmp_path):
    model = make(tmp_path, lora_rank=5, lora_target="q_proj,down_proj").model(trainable=True)
    sizes = {"q_proj": 64 + 64, "down_proj": 128 + 64}  # ftk://random/llama: hidden 64, intermediate 128, 2 layers
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert sum(parameter.numel() for parameter in learning) == 5 * 2 * sum(sizes.values())
    assert all("lora_" in name for name, parameter in model.named_parameters() if parameter.requires_grad)


@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("llama", {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}),
        ("qwen2", {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}),
        ("gpt2", {"c_attn", "c_proj", "c_fc"}),
        ("mixtral", {"q_proj", "k_proj", "v_proj", "o_proj", "experts.gate_up_proj", "experts.down_proj"}),
        ("phi3", {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}),
    ],
)
def test_all_is_every_linear_layer_and_expert_without_the_output_layer(tmp_path, family, names):
    model = make(tmp_path, family).model(trainable=True)
    config = model.peft_config["default"]
    assert {*config.target_modules, *(config.target_parameters or ())} == names
    shake(model)(IDS_BT, labels=IDS_BT).loss.backward()
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learning
    without = {
        name for name, one in model.named_parameters() if one.requires_grad and (one.grad is None or not one.grad.any())
    }
    assert not without
    assert not any("lm_head" in name for name in learning)


def learning_of(tmp_path, **settings):
    """Names of the layers that learn, without peft's prefix."""
    model = make(tmp_path, "llava", **settings).model(trainable=True)
    names = {
        name.removeprefix("base_model.model.model.") for name, one in model.named_parameters() if one.requires_grad
    }
    return {name.split(".lora_")[0] for name in names}


def test_all_is_the_language_model_alone_where_a_model_sees(tmp_path):
    """The vision tower of LLaVA has layers of the same names."""
    kinds = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    blocks = {"q_proj": "self_attn", "k_proj": "self_attn", "v_proj": "self_attn", "o_proj": "self_attn"}
    wanted = {f"language_model.layers.{i}.{blocks.get(kind, 'mlp')}.{kind}" for i in range(2) for kind in kinds}
    assert learning_of(tmp_path) == wanted
    assert learning_of(tmp_path, lora_target="q_proj") == {name for name in wanted if name.endswith("q_proj")}


def test_what_stands_beside_the_language_model_can_be_named(tmp_path, monkeypatch):
    """Where no patch keeps it."""
    monkeypatch.setenv("FTK_DISABLE", "vlm")
    tower = "vision_tower.encoder.layers.0.self_attn.q_proj"
    names = learning_of(tmp_path, lora_target=f"v_proj,linear_1,{tower}")
    language = {f"language_model.layers.{i}.self_attn.v_proj" for i in range(2)}
    assert {name.replace("vision_model.", "") for name in names} == {*language, "multi_modal_projector.linear_1", tower}


def test_an_adapter_of_a_model_that_sees_is_loaded_where_it_was_trained(tmp_path):
    trained = shake(make(tmp_path, "llava").model(trainable=True))
    trained.save_pretrained(tmp_path / "adapter")
    merged = make(tmp_path, "llava", adapter_name_or_path=str(tmp_path / "adapter")).model(trainable=False)
    torch.testing.assert_close(logits(merged), logits(trained), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral"])
def test_merging_equals_the_adapter_beside_the_model(tmp_path, family):
    folder, beside = saved(tmp_path, "adapter", family=family)
    merged = make(tmp_path, family, adapter_name_or_path=folder).model(trainable=False)
    assert not hasattr(merged, "peft_config")
    torch.testing.assert_close(logits(merged), beside, rtol=1e-4, atol=1e-5)
    plain = make(tmp_path, family)
    assert (logits(plain._loader.load_model(plain)) - beside).abs().max() > 0.01


@pytest.mark.parametrize("family", ["llama", "mixtral"])
def test_a_saved_adapter_goes_on_as_it_was(tmp_path, family):
    folder, before = saved(tmp_path, "adapter", family=family, lora_rank=2)
    model = make(tmp_path, family, adapter_name_or_path=folder).model(trainable=True)
    torch.testing.assert_close(logits(model), before, rtol=0, atol=0)
    learning = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert learning
    assert all("lora_" in name for name in learning)
    assert model.peft_config["default"].r == 2


def test_all_but_the_last_adapter_are_merged_and_the_last_goes_on(tmp_path):
    first, one = saved(tmp_path, "first", lora_target="q_proj")
    model = shake(make(tmp_path, adapter_name_or_path=first, create_new_adapter=True).model(trainable=True))
    model.save_pretrained(tmp_path / "second")
    both = logits(model)
    assert (both - one).abs().max() > 0.001
    names = [first, str(tmp_path / "second")]
    for trainable in (True, False):
        again = make(tmp_path, adapter_name_or_path=names).model(trainable=trainable)
        torch.testing.assert_close(logits(again), both, rtol=1e-4, atol=1e-5)


def test_what_a_run_merged_is_remembered_for_those_who_open_its_result(tmp_path, monkeypatch):
    first, _ = saved(tmp_path, "first")
    run = make(tmp_path, adapter_name_or_path=first, create_new_adapter=True)
    facts = {}
    monkeypatch.setattr(run, "record", lambda **new: facts.update(new))
    run.model(trainable=True)
    assert facts == {"beneath": [first]}
    out = tmp_path / "out"
    out.mkdir()
    options = {"model_name_or_path": "ftk://random/llama", "output_dir": str(out)}
    (out / "run.json").write_text(json.dumps({"status": "finished", "result": "adapter", "options": options, **facts}))
    assert open_run("chat", str(out)).value("adapter_name_or_path") == (first, str(out))


def test_additional_modules_learn_as_a_whole_and_are_saved(tmp_path):
    run = make(tmp_path, additional_target="embed_tokens")
    model = shake(run.model(trainable=True))
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name for name in learning if "lora_" not in name} == {
        "base_model.model.model.embed_tokens.modules_to_save.default.weight"
    }
    with torch.no_grad():
        model.get_parameter(min(name for name in learning if "embed" in name)).mul_(2)
    model.save_pretrained(tmp_path / "adapter")
    again = make(tmp_path, adapter_name_or_path=str(tmp_path / "adapter")).model(trainable=False)
    torch.testing.assert_close(logits(again), logits(model), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "base", "learns"),
    [
        ({}, torch.float32, torch.float32),
        ({"bf16": True}, torch.bfloat16, torch.float32),
        ({"bf16": True, "additional_target": "norm"}, torch.bfloat16, torch.float32),
        ({"pure_bf16": True}, torch.bfloat16, torch.bfloat16),
    ],
)
def test_what_learns_is_float32_unless_pure_bf16(tmp_path, settings, base, learns):
    model = make(tmp_path, **settings).model(trainable=True)
    assert {parameter.dtype for parameter in model.parameters() if not parameter.requires_grad} == {base}
    assert {parameter.dtype for parameter in model.parameters() if parameter.requires_grad} == {learns}


def test_a_bfloat16_model_trains_without_mixed_precision(tmp_path):
    model = make(tmp_path, "llama?dtype=bfloat16").model(trainable=True)
    shake(model)(IDS_BT, labels=IDS_BT).loss.backward()
    assert {parameter.dtype for parameter in model.parameters() if parameter.requires_grad} == {torch.float32}
    with pytest.raises(ModelError, match="Set bf16: true"):
        make(tmp_path, "llama?dtype=bfloat16", additional_target="norm").model(trainable=True)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"lora_target": "q_projj"}, "the model has no such linear layer. Did you mean q_proj? There is down_proj"),
        ({"additional_target": "embed_token"}, "the model has no module embed_token. Did you mean embed_tokens?"),
        ({"model_name_or_path": "ftk://random/mixtral", "lora_dropout": 0.1}, "lora_dropout: 0.1: experts that share"),
        ({"adapter_name_or_path": "./nowhere"}, "./nowhere: there is no such folder"),
        ({"lora_target": "embed_tokens.nothing"}, "the model has no such linear layer"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_one_line(tmp_path, settings, said):
    with pytest.raises(ModelError) as error:
        make(tmp_path, **settings).model(trainable=True)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_that_is_no_adapter_is_one_line(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"has no adapter_config\.json, so it is a whole model; give it as model_name"):
        make(tmp_path, adapter_name_or_path=str(tmp_path)).model(trainable=False)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"has no adapter_model\.safetensors"):
        make(tmp_path, adapter_name_or_path=str(tmp_path)).model(trainable=False)


def test_an_adapter_of_another_model_is_one_line(tmp_path):
    folder, _ = saved(tmp_path, "adapter")
    with pytest.raises(ModelError, match="does not fit ftk://random/llama\\?hidden_size=128"):
        make(tmp_path, "llama?hidden_size=128", adapter_name_or_path=folder).model(trainable=False)


def test_a_new_adapter_on_nothing_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="create_new_adapter needs adapter_name_or_path"):
        make(tmp_path, create_new_adapter=True)


def test_targets_can_be_named_by_their_place(tmp_path):
    run = make(tmp_path)
    model = run._loader.load_model(run)
    assert find_targets(model, ["layers.1.self_attn.q_proj", "o_proj"], run, "lora_target").modules == [
        "layers.1.self_attn.q_proj",
        "o_proj",
    ]
    assert "lm_head" not in linear_modules(model)


def test_an_adapter_that_goes_on_says_which_settings_it_does_not_take(tmp_path, caplog):
    folder, _ = saved(tmp_path, "adapter", lora_rank=2)
    make(tmp_path, adapter_name_or_path=folder, lora_rank=4).model(trainable=True)
    assert [record.getMessage() for record in caplog.records if "has no effect" in record.getMessage()] == [
        f"the test: lora_rank: 4 has no effect: {folder} goes on as it is, with 2. "
        "create_new_adapter: true makes a new one"
    ]


@pytest.mark.parametrize("family", ["llama", "qwen3_moe", "llava", "gpt2"])
def test_a_run_is_saved_loaded_and_resumed_exactly(prove, family):
    prove(model_name_or_path=f"ftk://random/{family}", finetuning_type="lora")


def test_a_run_with_whole_modules_and_terms_on_embeddings_is_saved_loaded_and_resumed_exactly(prove):
    prove(
        model_name_or_path="ftk://random/llama", finetuning_type="lora", additional_target="norm",
        lora_target="q_proj,embed_tokens,lm_head", use_rslora=True,
    )  # fmt: skip


def test_a_run_with_a_shared_embedding_is_saved_loaded_and_resumed_exactly(prove):
    done = prove(
        model_name_or_path="ftk://random/llama?tie_word_embeddings=true", finetuning_type="lora",
        additional_target="embed_tokens,lm_head",
    )  # fmt: skip
    base = done.model.get_base_model()
    assert base.lm_head.weight is base.get_input_embeddings().weight


def test_a_run_on_top_of_a_merged_adapter_is_saved_loaded_and_resumed_exactly(prove, tmp_path):
    first, _ = saved(tmp_path, "first", lora_target="q_proj")
    prove(
        model_name_or_path="ftk://random/llama", finetuning_type="lora", adapter_name_or_path=first,
        create_new_adapter=True,
    )  # fmt: skip
