"""LoftQ against algorithm 1 of Li et al. 2023 written naively (quantise, decompose, in turn), and against the golden
property checks with bitsandbytes' nf4: on a 256 x 256 matrix of N(0, 0.02^2) at rank 16 the error falls from 0.4729
(plain nf4) to 0.4195 after one iteration and 0.3683 after five."""

import importlib.util
import json

import pytest
import torch
from ftk import ModelError
from ftk.errors import ConfigError
from ftk.run import Run
from ftk.testing import check_plugin
from ftk.testing.runs import plan_in
from ftk_loftq.alternating import alternate

IDS_BT = torch.tensor([[5, 6, 7, 8, 9, 10]])
needs_bnb = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed; pip install bitsandbytes"
)
QLORA = {
    "model_name_or_path": "ftk://random/llama", "finetuning_type": "lora", "quantization_bit": 4, "loftq_init": True,
}  # fmt: skip


def grid(w, bits=4, block=64):
    """A naive stand-in for nf4: even steps between the largest of each block of 64 and its negative."""
    blocks = w.reshape(-1, block)
    top = blocks.abs().amax(dim=1, keepdim=True)
    steps = 2 ** (bits - 1) - 1
    return ((blocks / top * steps).round() / steps * top).reshape(w.shape)


def nf4(w):
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    return dequantize_4bit(*quantize_4bit(w, quant_type="nf4", blocksize=64))


def gaussian(seed=0):
    return torch.randn(256, 256, generator=torch.Generator().manual_seed(seed)) * 0.02


def best(rest, rank):
    u, s, vh = torch.linalg.svd(rest)
    return u[:, :rank] * s[:rank] @ vh[:rank]


def logits(model):
    with torch.no_grad():
        return model.eval()(IDS_BT, use_cache=False).logits


def make(tmp_path, **settings):
    return Run(plan_in(tmp_path, **{**QLORA, **settings}))


def test_the_plugin_keeps_the_contract():
    assert check_plugin("loftq")


@pytest.mark.parametrize("iterations", [1, 2, 5])
def test_it_is_algorithm_1(iterations):
    w, naive = gaussian(), torch.zeros(256, 256)
    for _ in range(iterations):
        quantised = grid(w - naive)
        naive = best(w - quantised, 16)
    q, (a, b) = alternate(w, grid(w), grid, 16, 2.0, iterations)
    torch.testing.assert_close(q, quantised, rtol=0, atol=1e-3)
    torch.testing.assert_close((w - q - 2 * b @ a).norm(), (w - quantised - naive).norm(), rtol=1e-3, atol=0)


@needs_bnb
def test_the_error_is_below_that_of_plain_nf4_by_as_much_as_published():
    w = gaussian()
    errors = [float((w - nf4(w)).norm())]
    for iterations in (1, 5):
        q, (a, b) = alternate(w, nf4(w), nf4, 16, 2.0, iterations)
        errors.append(float((w - q - 2 * b @ a).norm()))
    assert errors == pytest.approx([0.4729, 0.4195, 0.3683], rel=0.02)


def test_a_plain_model_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="lora_variant:loftq needs quantization_bit"):
        make(tmp_path, quantization_bit=None)


def distance(tmp_path, trained, plain):
    return float((logits(trained) - plain).norm())


@needs_bnb
@pytest.mark.parametrize("settings", [{}, {"use_dora": True}, {"quantization_type": "fp4"}, {"quantization_bit": 8}])
def test_a_quantised_model_begins_nearer_to_the_plain_one(tmp_path, settings):
    run = make(tmp_path, lora_rank=32, **settings)
    plain = logits(Run(plan_in(tmp_path, model_name_or_path="ftk://random/llama")).model(trainable=False))
    without = make(tmp_path, **{**settings, "loftq_init": False}).model(trainable=True)
    assert distance(tmp_path, run.model(trainable=True), plain) < 0.8 * distance(tmp_path, without, plain)


@pytest.mark.parametrize(
    ("package", "settings"),
    [
        ("hqq", {"quantization_method": "hqq", "quantization_bit": 3}),
        ("optimum.quanto", {"quantization_method": "quanto", "quantization_bit": 2}),
        ("torchao", {"quantization_method": "torchao", "quantization_bit": 8}),
    ],
)
def test_so_does_one_of_any_other_quantizer(tmp_path, package, settings):
    pytest.importorskip(package, reason=f"{package} is not installed")
    test_a_quantised_model_begins_nearer_to_the_plain_one(tmp_path, settings)


def left(tmp_path, **settings):
    """The error of all matrices with their terms, by what each layer makes of the unit vectors."""
    model = make(tmp_path, **settings).model(trainable=True).eval()
    plain, squared = Run(plan_in(tmp_path, model_name_or_path="ftk://random/llama")).model(trainable=False), 0.0
    for name, layer in model.named_modules():
        if hasattr(layer, "lora_A") and "default" in layer.lora_A:
            w = plain.get_submodule(name.removeprefix("base_model.model.")).weight
            with torch.no_grad():
                squared += float((layer(torch.eye(w.shape[1])).T - w).pow(2).sum())
    return squared**0.5


@needs_bnb
def test_more_iterations_leave_less_of_the_error(tmp_path):
    plain, once, often = left(tmp_path, loftq_init=False), left(tmp_path), left(tmp_path, loftq_iter=5)
    assert once < 0.9 * plain
    assert often < 0.95 * once


@needs_bnb
def test_more_iterations_than_the_quantizer_can_do_are_refused(tmp_path):
    with pytest.raises(ModelError, match="loftq_iter: 2: above 1 it needs nf4 or fp4"):
        make(tmp_path, quantization_bit=8, loftq_iter=2).model(trainable=True)


@needs_bnb
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"loftq_iter": 3},
        {"loftq_iter": 2, "use_dora": True},
        {"model_name_or_path": "ftk://random/qwen3_moe", "loftq_iter": 2},
        {"model_name_or_path": "ftk://random/llava"},
    ],
    ids=["once", "thrice", "dora", "moe", "sees"],
)
def test_a_run_is_saved_loaded_and_resumed_exactly(prove, settings):
    done = prove(**{**QLORA, **settings})
    config = json.loads((done.folder / "checkpoint-3" / "adapter_config.json").read_text())
    assert config["r"] == 8
    changed = settings.get("loftq_iter", 1) > 1
    assert config["base_model_name_or_path"].endswith("changed_base") == changed
    assert (done.folder / "changed_base").is_dir() == changed
    if changed:
        with pytest.raises(ModelError, match=r"learnt on .*changed_base, not on ftk://random"):
            make(done.folder.parent, adapter_name_or_path=str(done.folder / "checkpoint-3"), **settings).model(
                trainable=False
            )


@pytest.mark.parametrize("method", ["full", "oft"])
def test_it_is_refused_without_lora(tmp_path, method):
    with pytest.raises(ConfigError, match="loftq_init: needs adapter:lora"):
        plan_in(tmp_path, finetuning_type=method, **{"loftq_init": True})
