"""EETQ's kernels need a GPU: what is said without one. What it computes is in tests/e2e/test_quantised.py."""

import importlib.util

import pytest
import torch
from ftk import ConfigError, PluginError
from ftk.registry import Registry
from ftk.run import Run
from ftk.testing import check_plugin
from ftk.testing.runs import plan_in

KEYS = {"quantization_method": "eetq", "quantization_bit": 8}


def test_the_plugin_keeps_the_contract():
    assert check_plugin("eetq")


@pytest.mark.skipif(importlib.util.find_spec("kernels") is not None, reason="kernels is installed")
def test_without_its_back_end_the_plan_says_what_to_install(tmp_path):
    with pytest.raises(PluginError, match=r'eetq needs kernels. pip install "ftk-eetq\[backend\]"'):
        plan_in(tmp_path, **KEYS)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_run_says_so_before_anything_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("ftk.registry.missing_packages", lambda spec: [])
    run = Run(plan_in(tmp_path, **KEYS, use_cpu=False))
    with pytest.raises(ConfigError, match="quantizer:eetq needs a GPU, and torch finds none"):
        run.tokens  # noqa: B018
    assert not run._made.get("model:True")


def test_it_does_eight_bits_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr("ftk.registry.missing_packages", lambda spec: [])
    with pytest.raises(ConfigError, match="quantization_bit: 4: eetq can do 8"):
        plan_in(tmp_path, **{**KEYS, "quantization_bit": 4})
    assert Registry.discover().find("quantizer", "eetq").gpu


def test_the_config_is_what_transformers_takes(tmp_path, monkeypatch):
    from transformers.quantizers.auto import AutoQuantizationConfig

    monkeypatch.setattr("ftk.registry.missing_packages", lambda spec: [])
    made = Run(plan_in(tmp_path, **KEYS)).quantization_config()
    assert made.to_dict() == AutoQuantizationConfig.from_dict({"quant_method": "eetq", "weights": "int8"}).to_dict()
