"""Every installed export format of few bits: written, put through the parity gate, opened by transformers alone.

The reference is the plain model. What is not installed here is skipped, saying why."""

import json

import pytest
import torch
from ftk import PluginError
from ftk.opening import open_run
from ftk.registry import Registry
from ftk_export.command import export_run
from ftk_export.writing import check_target
from transformers import AutoModelForCausalLM

IDS_BT = torch.tensor([[5, 6, 7, 8, 9]])
FORMATS = [name for name, spec in Registry.discover().specs("export_format").items() if spec.bits]
TEXTS = [{"text": f"The {word} stands on a table of wood, and nobody knows why it does. " * 8} for word in "abcdefgh"]


@pytest.mark.parametrize("name", FORMATS)
def test_an_export_of_few_bits_answers_as_the_model_does(tmp_path, name):
    try:
        spec = Registry.discover().find("export_format", name)
    except PluginError as missing:
        pytest.skip(str(missing))
    (tmp_path / "texts.jsonl").write_text("\n".join(map(json.dumps, TEXTS)))
    words = ["--model_name_or_path", "ftk://tiny-chat", "--template", "chatml", "--export_dir", str(tmp_path / "out")]
    words += ["--export_format", name, "--export_quantization_bit", str(8 if 8 in spec.bits else 4)]
    if spec.calibrated:
        words += ["--export_quantization_dataset", str(tmp_path / "texts.jsonl")]
        words += ["--export_quantization_nsamples", "8", "--export_quantization_maxlen", "64"]
    run = open_run("export", None, words)
    try:
        told = export_run(run, check_target(run))
    except PluginError as error:
        if "GPU" in str(error):
            pytest.skip(str(error))
        raise
    assert "3 prompts" in told
    print(name, told)
    plain = open_run("chat", None, words[:4]).model(trainable=False)
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert found.config.quantization_config is not None
    with torch.no_grad():
        one, other = (model.eval()(IDS_BT).logits.float() for model in (plain, found))
    assert (one - other).norm() / one.norm() < spec.tolerance
    size = sum(path.stat().st_size for path in (tmp_path / "out").glob("*.safetensors"))
    assert size < 0.7 * sum(weight.numel() * weight.element_size() for weight in plain.parameters())
