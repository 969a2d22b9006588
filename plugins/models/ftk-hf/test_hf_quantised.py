"""What is decided of quantised models before anything is loaded, without any quantiser's package. The references are
configs as their authors' tools write them."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from ftk import ConfigError, ModelError, PluginError
from ftk.opening import open_run
from ftk.run import Run
from ftk.testing.runs import plan_in
from ftk_hf.quantised import bits_of, stored_in
from transformers import AutoConfig
from transformers.quantizers import HfQuantizer

GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128}
TENSORS = {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {}}


@pytest.fixture
def folder(tmp_path):
    """(quantization config, family) → the folder of a model that says so; its weights are plain."""

    def make(config, family="llama"):
        source = open_run("chat", None, ["--model_name_or_path", f"ftk://random/{family}"]).model_path
        made = shutil.copytree(source, tmp_path / "model")
        text = json.loads((made / "config.json").read_text())
        (text["text_config"] if family == "llava" else text)["quantization_config"] = config
        (made / "config.json").write_text(json.dumps(text))
        return made

    return make


@pytest.mark.parametrize(
    ("stored", "bits"),
    [
        (GPTQ, 4),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": False}, 4),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, 8),
        ({"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 3, "group_size": 64}}}, 3),
        ({"quant_method": "quanto", "weights": "int2"}, 2),
        ({"quant_method": "aqlm", "num_codebooks": 1, "nbits_per_codebook": 16}, None),
        (TENSORS, None),
    ],
)
def test_the_bits_of_a_stored_model_are_read_where_its_config_says_them(stored, bits):
    assert bits_of(stored) == bits


@pytest.mark.parametrize("family", ["llama", "llava"])
def test_a_stored_model_is_known_by_its_config_or_that_of_its_language_model(folder, family):
    assert stored_in(AutoConfig.from_pretrained(folder(GPTQ, family)))["quant_method"] == "gptq"
    assert stored_in(AutoConfig.for_model(family)) is None


def test_a_format_without_a_plugin_is_left_to_transformers_and_cannot_be_trained_whole(folder, tmp_path):
    model = {"model_name_or_path": str(folder(TENSORS))}
    run = open_run("chat", None, [f"--{key}={value}" for key, value in model.items()])
    assert len(run.tokenizer) > 0
    assert run.plan.one("quantizer").name == "stored"
    with pytest.raises(ModelError, match="compressed-tensors"):  # the package that transformers asks for
        run.model(trainable=False)
    with pytest.raises(ConfigError, match="adapter:full and quantizer exclude each other"):
        Run(plan_in(tmp_path, **model, finetuning_type="full")).tokens  # noqa: B018


def test_a_plugin_that_is_not_there_is_named_before_anything_is_loaded(folder, monkeypatch):
    run = open_run("chat", None, ["--model_name_or_path", str(folder(GPTQ)), "--plugins", "{disable: [gptq]}"])
    monkeypatch.setattr(type(run.plan.registry), "trouble_with", lambda *_: "")
    monkeypatch.setattr("ftk.registry.first_party_index", lambda: {"installed": {"stored:gptq": "ftk-gptq"}})
    with pytest.raises(PluginError, match=r"quantised with gptq needs ftk-gptq, which is not installed\. pip install"):
        run.tokens  # noqa: B018


@pytest.mark.parametrize(
    ("settings", "rank", "device"),
    [({"use_cpu": True}, None, "cpu"), ({"use_cpu": False}, None, "cuda:0"), ({"use_cpu": False}, "1", "cuda:1")],
)
def test_quantised_layers_are_made_where_training_wants_them(tmp_path, monkeypatch, settings, rank, device):
    from ftk_hf.quantised import own_device

    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **kwargs: SimpleNamespace(type="cuda"))
    if rank:
        monkeypatch.setenv("LOCAL_RANK", rank)
    assert own_device(Run(plan_in(tmp_path, **settings))) == device


class OddLinear(torch.nn.Module):
    """A layer of somebody's own, whose weight nobody can ask for."""

    def __init__(self, rows, columns):
        super().__init__()
        self.in_features = columns
        self.register_buffer("codes", torch.randint(-8, 8, (rows, columns), dtype=torch.int8))
        self.bias = torch.nn.Parameter(torch.randn(rows))

    def forward(self, x):
        return x @ (0.01 * self.codes).T + self.bias


class OddQuantizer(HfQuantizer):
    is_trainable = True

    def is_serializable(self):
        return False


def test_plain_weights_are_what_a_layer_computes_with_whatever_it_is():
    run = open_run("chat", None, ["--model_name_or_path", "ftk://random/llama"])
    model = run.model(trainable=False)
    assert run.dequantized(model) is model
    odd = OddLinear(128, 64)
    model.model.layers[1].mlp.up_proj = odd
    model.hf_quantizer = OddQuantizer(SimpleNamespace(quant_method="odd"))
    x = torch.randn(3, 64)
    expected = odd(x)
    plain = run.dequantized(model).model.layers[1].mlp.up_proj
    assert type(plain) is torch.nn.Linear
    torch.testing.assert_close(plain(x), expected)
    torch.testing.assert_close(plain.weight, 0.01 * odd.codes)
