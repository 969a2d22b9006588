"""torchao against absmax rounding written naively: int8 rows of 127 steps, fp8 rows of torch's own e4m3 with 448 as the
largest value."""

import pytest
import torch
from ftk import ConfigError
from ftk.opening import open_run
from ftk.run import Run
from ftk.testing import check_plugin
from ftk.testing.runs import plan_in

pytest.importorskip("torchao", reason='pip install "ftk-torchao[backend]"')

IDS_BT = torch.tensor([[5, 6, 7, 8, 9]])


def make(tmp_path, **settings):
    keys = {"model_name_or_path": "ftk://random/llama", "quantization_method": "torchao", "quantization_bit": 8}
    return Run(plan_in(tmp_path, **{**keys, **settings}))


def base(run):
    run.tokens  # noqa: B018 (what a run asks for first)
    return run._loader.load_model(run).eval()


def int8(weight_OI):
    step = weight_OI.abs().amax(1, keepdim=True) / 127.5  # torchao's range is -128 to 127
    return (weight_OI / step).round().clamp(-128, 127) * step


def fp8(weight_OI):
    scale = weight_OI.abs().amax(1, keepdim=True) / 448
    return (weight_OI / scale).to(torch.float8_e4m3fn).float() * scale


def test_the_plugin_keeps_the_contract():
    assert check_plugin("torchao")


@pytest.mark.parametrize(("kind", "naive"), [("int8", int8), ("fp8", fp8)])
def test_weights_are_rounded_row_by_row(tmp_path, kind, naive):
    plain = base(Run(plan_in(tmp_path, model_name_or_path="ftk://random/llama")))
    model = base(make(tmp_path, torchao_type=kind))
    for i, block in enumerate(model.model.layers):
        weight = plain.model.layers[i].mlp.up_proj.weight
        torch.testing.assert_close(block.mlp.up_proj.weight.dequantize(), naive(weight.detach()), atol=2e-3, rtol=0.01)
    assert type(model.lm_head.weight) is torch.nn.Parameter


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_a_stored_model_needs_no_key(tmp_path, kind):
    run = make(tmp_path, torchao_type=kind)
    model = base(run)
    model.save_pretrained(tmp_path / "model")
    run.tokenizer.save_pretrained(tmp_path / "model")
    again = open_run("chat", None, ["--model_name_or_path", str(tmp_path / "model")])
    opened = base(again)
    with torch.no_grad():
        torch.testing.assert_close(opened(IDS_BT).logits, model(IDS_BT).logits)
    assert type(opened.model.layers[0].mlp.up_proj.weight) is type(model.model.layers[0].mlp.up_proj.weight)
    assert again.plan.one("quantizer").name == "torchao"


def test_full_training_and_other_bits_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="adapter:full and quantizer exclude each other"):
        make(tmp_path, finetuning_type="full")
    with pytest.raises(ConfigError, match="quantization_bit: 4: torchao can do 8"):
        make(tmp_path, quantization_bit=4)
