"""DoRA against Liu et al. 2024, eq. 5, written naively: W' = m (W + s B A) / ||W + s B A||, a length m for each row of
a (out, in) matrix, which begins as ||W||. The golden property checks have the same two claims."""

import pytest
import torch
from ftk import ModelError
from ftk.errors import ConfigError
from ftk.run import Run
from ftk.testing import check_plugin
from ftk.testing.runs import plan_in

IDS_BT = torch.tensor([[5, 6, 7, 8, 9]])


def make(tmp_path, family="llama", **settings):
    defaults = {"model_name_or_path": f"ftk://random/{family}", "finetuning_type": "lora", "use_dora": True}
    return Run(plan_in(tmp_path, **{**defaults, **settings}))


def logits(model):
    with torch.no_grad():
        return model.eval()(IDS_BT, use_cache=False).logits


def shake(model):
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
        if "magnitude" in name:
            parameter.data.mul_(1.1)
    return model


def test_the_plugin_keeps_the_contract():
    assert check_plugin("dora")


def test_a_new_adapter_changes_nothing_and_lengths_are_those_of_the_rows(tmp_path):
    run = make(tmp_path)
    before = logits(run._loader.load_model(run))
    model = run.model(trainable=True)
    torch.testing.assert_close(logits(model), before, rtol=1e-5, atol=1e-6)
    layer = model.base_model.model.model.layers[0].mlp.down_proj
    lengths = layer.lora_magnitude_vector["default"].weight
    torch.testing.assert_close(lengths.data, layer.base_layer.weight.pow(2).sum(dim=1).sqrt())
    assert lengths.requires_grad


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True}])
def test_a_layer_computes_equation_5(tmp_path, settings):
    model = shake(make(tmp_path, lora_rank=4, lora_alpha=8, **settings).model(trainable=True)).eval()
    layer = model.base_model.model.model.layers[1].self_attn.q_proj
    a, b, w = layer.lora_A["default"].weight, layer.lora_B["default"].weight, layer.base_layer.weight
    scale = 8 / (4**0.5 if settings else 4)
    v = w + scale * (b @ a)
    changed = layer.lora_magnitude_vector["default"].weight[:, None] * v / v.norm(dim=1, keepdim=True)
    x = torch.randn(3, layer.in_features)
    torch.testing.assert_close(layer(x), x @ changed.T, rtol=1e-4, atol=1e-5)


def test_experts_that_share_a_parameter_are_refused_in_one_line(tmp_path):
    with pytest.raises(ModelError) as error:
        make(tmp_path, "mixtral").model(trainable=True)
    assert (
        "use_dora: True: experts that share a parameter cannot have it. Name the layers in lora_target without"
        in str(error.value)
    )
    make(tmp_path, "mixtral", lora_target="q_proj,v_proj").model(trainable=True)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"model_name_or_path": "ftk://random/qwen3_moe", "lora_target": "q_proj,v_proj"},
        {"model_name_or_path": "ftk://random/llava"},
    ],
    ids=["dense", "moe", "sees"],
)
def test_a_run_is_saved_loaded_and_resumed_exactly(prove, settings):
    done = prove(
        **{"model_name_or_path": "ftk://random/llama", "finetuning_type": "lora", "use_dora": True, **settings}
    )
    assert any("magnitude" in name for name, one in done.model.named_parameters() if one.requires_grad)


@pytest.mark.parametrize("method", ["full", "oft"])
def test_it_is_refused_without_lora(tmp_path, method):
    with pytest.raises(ConfigError, match="use_dora: needs adapter:lora"):
        plan_in(tmp_path, finetuning_type=method, **{"use_dora": True})
