"""HQQ against its paper, written naively: a layer computes with (W_q - zero) * scale, W_q whole numbers in groups, and
is no worse than rounding to the nearest in the norm that HQQ minimises (Badri and Shaji 2023, eq. 3: p = 0.7)."""

import pytest
import torch
from ftk import ConfigError
from ftk.opening import open_run
from ftk.run import Run
from ftk.testing import check_plugin
from ftk.testing.runs import plan_in
from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING

pytest.importorskip("hqq", reason='pip install "ftk-hqq[backend]"')

IDS_BT = torch.tensor([[5, 6, 7, 8, 9]])
BITS = (1, 2, 3, 4, 5, 6, 8)


def make(tmp_path, bits=4, family="llama", **settings):
    keys = {"model_name_or_path": f"ftk://random/{family}", "quantization_method": "hqq", "quantization_bit": bits}
    return Run(plan_in(tmp_path, **{**keys, **settings}))


def base(run):
    run.tokens  # noqa: B018 (what a run asks for first)
    return run._loader.load_model(run).eval()


def plain_of(tmp_path, family="llama"):
    return base(Run(plan_in(tmp_path, model_name_or_path=f"ftk://random/{family}")))


def layers_of(model):
    return {name: one for name, one in model.named_modules() if type(one).__name__ == "HQQLinear"}


def nearest(weight_OI, bits, group):
    """Rounding to the nearest of 2^bits values between the smallest and the largest of each group."""
    groups = weight_OI.reshape(-1, group)
    low, high = groups.amin(1, keepdim=True), groups.amax(1, keepdim=True)
    step = (high - low) / (2**bits - 1)
    return (((groups - low) / step).round() * step + low).reshape(weight_OI.shape)


def test_the_plugin_keeps_the_contract():
    assert check_plugin("hqq")


def test_the_error_falls_with_the_bits_and_is_below_that_of_rounding_to_the_nearest(tmp_path):
    plain = dict(plain_of(tmp_path).named_parameters())

    def error(of):
        return sum((of(name) - weight).abs().pow(0.7).sum().item() for name, weight in plain.items() if name in chosen)

    errors = []
    for bits in BITS:
        layers = layers_of(base(make(tmp_path, bits)))
        chosen = {f"{name}.weight" for name in layers}
        errors.append(error(lambda name, layers=layers: layers[name.removesuffix(".weight")].dequantize()))
        assert errors[-1] <= error(lambda name, bits=bits: nearest(plain[name], bits, 64)) * 1.001
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 10 * errors[-1]


@pytest.mark.parametrize("bits", BITS)
def test_weights_are_whole_numbers_in_their_groups(tmp_path, bits):
    layer = base(make(tmp_path, bits)).model.layers[1].mlp.down_proj
    values = layer.dequantize().reshape(-1, 64) / layer.meta["scale"] + layer.meta["zero"]
    torch.testing.assert_close(values, values.round(), atol=2e-3, rtol=0)
    assert values.min() > -0.01
    assert values.max() < 2**bits - 0.99


@pytest.mark.parametrize(("bits", "bytes_each"), [(8, 1), (6, 1), (5, 1), (4, 0.5), (3, 0.4), (2, 0.25), (1, 0.125)])
def test_packed_weights_take_this_much(tmp_path, bits, bytes_each):
    """5 and 6 bits take whole bytes, 3 bits ten to a word of 32."""
    layer = base(make(tmp_path, bits, "llama?intermediate_size=640")).model.layers[0].mlp.up_proj
    assert layer.W_q.numel() * layer.W_q.element_size() / (64 * 640) == pytest.approx(bytes_each)


def test_smaller_groups_are_more_exact(tmp_path):
    plain = plain_of(tmp_path).model.layers[0].mlp.up_proj.weight
    errors = [
        (base(make(tmp_path, 2, hqq_group_size=size)).model.layers[0].mlp.up_proj.dequantize() - plain).norm().item()
        for size in (64, 32, 16)
    ]
    assert errors == sorted(errors, reverse=True)


def test_a_bias_stays_and_a_group_that_does_not_fit_is_halved(tmp_path):
    run = Run(plan_in(tmp_path, model_name_or_path="ftk://random/qwen2?hidden_size=36"))
    plain = base(run)
    ours = plain.model.layers[0].self_attn.k_proj
    torch.nn.init.normal_(ours.bias)
    plain.save_pretrained(tmp_path / "model")
    run.tokenizer.save_pretrained(tmp_path / "model")
    layer = base(make(tmp_path, 8, model_name_or_path=str(tmp_path / "model"))).model.layers[0].self_attn.k_proj
    assert (layer.out_features * layer.in_features, layer.meta["group_size"]) == (18 * 36, 8)
    x = torch.randn(4, 36)
    torch.testing.assert_close(layer(x), ours(x), atol=5e-3, rtol=0.02)
    assert ours(x).sub(ours.bias).abs().max() < ours.bias.abs().max()


def test_a_layer_moves_with_its_model_and_takes_its_type(tmp_path):
    """Upstream's leaves scales and zero points behind when the model that it stands in is moved."""
    model = base(make(tmp_path))
    layer = model.model.layers[0].mlp.up_proj
    before = layer.dequantize()
    torch.nn.Module.to(model, torch.bfloat16)
    assert torch.equal(layer.dequantize(), before)
    model.to(torch.bfloat16)
    assert (layer.W_q.dtype, layer.dequantize().dtype) == (torch.uint8, torch.bfloat16)
    torch.testing.assert_close(layer.dequantize().float(), before, atol=1e-3, rtol=0.02)
    torch.nn.Module.to(model, "meta")
    assert {layer.W_q.device.type, layer.meta["scale"].device.type, layer.meta["zero"].device.type} == {"meta"}


@pytest.mark.parametrize("bits", [3, 4])
def test_a_stored_model_needs_no_key_and_computes_in_the_type_of_its_run(tmp_path, bits):
    run = make(tmp_path, bits, "qwen2")
    model = base(run)
    model.save_pretrained(tmp_path / "model")
    run.tokenizer.save_pretrained(tmp_path / "model")
    again = open_run("chat", None, ["--model_name_or_path", str(tmp_path / "model")])
    with torch.no_grad():
        assert torch.equal(base(again)(IDS_BT).logits, model(IDS_BT).logits)
    assert again.plan.one("quantizer").name == "hqq"
    trains = Run(plan_in(tmp_path, model_name_or_path=str(tmp_path / "model"), bf16=True))
    layer = base(trains).model.layers[0].mlp.up_proj
    assert {layer.compute_dtype, layer.meta["scale"].dtype, layer.dequantize().dtype} == {torch.bfloat16}


def test_full_training_and_other_bits_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="adapter:full and quantizer exclude each other"):
        make(tmp_path, finetuning_type="full")
    with pytest.raises(ConfigError, match="quantization_bit: 7: hqq can do 1, 2, 3, 4, 5, 6, 8"):
        make(tmp_path, 7)


def test_it_steps_aside_when_transformers_can(tmp_path, monkeypatch):
    class Working(AUTO_QUANTIZER_MAPPING["hqq"]):
        def get_quantize_ops(self):
            return None

    monkeypatch.setitem(AUTO_QUANTIZER_MAPPING, "hqq", Working)
    make(tmp_path).tokens  # noqa: B018
    assert AUTO_QUANTIZER_MAPPING["hqq"] is Working
