"""quanto against absmax rounding of rows written naively."""

import os

import pytest
import torch
from ftk import ConfigError
from ftk.run import Run
from ftk.testing import check_plugin
from ftk.testing.runs import plan_in

pytest.importorskip("optimum.quanto", reason='pip install "ftk-quanto[backend]"')


def make(tmp_path, bits=8, **settings):
    keys = {"model_name_or_path": "ftk://random/llama", "quantization_method": "quanto", "quantization_bit": bits}
    return Run(plan_in(tmp_path, **{**keys, **settings}))


def base(run):
    run.tokens  # noqa: B018 (what a run asks for first)
    return run._loader.load_model(run).eval()


def plain_of(tmp_path):
    return base(Run(plan_in(tmp_path, model_name_or_path="ftk://random/llama"))).model.layers[0].mlp.up_proj.weight


def test_the_plugin_keeps_the_contract():
    assert check_plugin("quanto")


def test_8_bits_are_127_steps_of_a_row(tmp_path):
    plain = plain_of(tmp_path).detach()
    step = plain.abs().amax(1, keepdim=True) / 127
    weight = base(make(tmp_path)).model.layers[0].mlp.up_proj.weight.dequantize()
    torch.testing.assert_close(weight, (plain / step).round() * step, atol=2e-3, rtol=0)


@pytest.mark.skipif(not os.environ.get("FTK_SLOW_TESTS"), reason="compiles an extension; FTK_SLOW_TESTS=1 runs this")
def test_the_error_falls_with_the_number_of_bits(tmp_path):
    plain = plain_of(tmp_path)
    errors = [
        (base(make(tmp_path, bits)).model.layers[0].mlp.up_proj.weight.dequantize() - plain).norm().item()
        for bits in (2, 4, 8)
    ]
    assert errors[0] > 2 * errors[1] > 10 * errors[2] > 0


def test_full_training_and_other_bits_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="adapter:full and quantizer exclude each other"):
        make(tmp_path, finetuning_type="full")
    with pytest.raises(ConfigError, match="quantization_bit: 3: quanto can do 2, 4, 8"):
        make(tmp_path, 3)
