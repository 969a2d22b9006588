"""What can be told without a GPU: that one is needed, and what the plan refuses before. Rounding needs NVIDIA's."""

import importlib.util
import json

import pytest
import torch
from ftk import ConfigError, PluginError
from ftk.opening import open_run
from ftk.testing import check_plugin
from ftk_export.command import export_run
from ftk_export.writing import check_target
from ftk_export_awq.rounding import write


def exporting(folder, **keys):
    keys = {"model_name_or_path": "ftk://tiny-chat", "template": "chatml", "export_dir": str(folder / "out"), **keys}
    (folder / "model.yaml").write_text(json.dumps({"export_format": "awq", **keys}))
    return open_run("export", str(folder / "model.yaml"), [])


def test_the_plugin_keeps_the_contract():
    assert check_plugin("export-awq")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_it_says_that_it_needs_a_gpu(tmp_path):
    with pytest.raises(PluginError, match="awq: gptqmodel rounds with AWQ on NVIDIA GPUs only"):
        write(None, tmp_path, None)


def test_other_bits_and_no_texts_are_refused_before_anything_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr("ftk.plugins._is_installed", lambda package: True)
    with pytest.raises(ConfigError, match="8: awq can do 4"):
        check_target(exporting(tmp_path, export_quantization_bit=8))
    with pytest.raises(ConfigError, match=r"awq looks at texts while it rounds\. Give export_quantization_dataset"):
        check_target(exporting(tmp_path))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="rounds on a GPU, and there is none")
@pytest.mark.skipif(importlib.util.find_spec("gptqmodel") is None, reason="needs the extra `backend`")
def test_a_model_is_rounded_and_compared(tmp_path):
    (tmp_path / "rows.json").write_text(json.dumps([{"text": f"The number {one} is a number."} for one in range(64)]))
    told = export_run(exporting(tmp_path, export_quantization_dataset="rows.json"), tmp_path / "out")
    assert "prompts: logits" in told
    stored = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert (stored["quant_method"], stored["bits"]) == ("awq", 4)
