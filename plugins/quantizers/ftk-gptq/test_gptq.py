"""GPTQ's files packed by hand after their published layout, and the same numbers in a plain model as the reference.

qweight (I / 8, O) int32, eight weights of a column from the low bits on; scales (I / group, O); zero points
(I / group, O / 8), one less than they mean; g_idx (I), the group of each row.
"""

import pytest
import torch
from ftk import ConfigError, PluginError
from ftk.opening import open_run
from ftk.registry import Registry
from ftk.run import Run
from ftk.testing import check_plugin
from ftk.testing.runs import plan_in, run_in

try:
    Registry.discover().find("quantizer", "gptq")
    MISSING = ""
except PluginError as error:
    MISSING = str(error)
needs_back_end = pytest.mark.skipif(bool(MISSING), reason=MISSING)

IDS_BT = torch.tensor([[5, 6, 7, 8, 9]])
CONFIG = {
    "quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False, "sym": True, "checkpoint_format": "gptq",
}  # fmt: skip


def as_int32(nibbles, dim):
    """Eight numbers below 16 along ``dim`` in each 32-bit word, the first in the lowest bits."""
    words = torch.stack(nibbles.long().unflatten(dim, (-1, 8)).unbind(dim + 1))
    packed = sum(word << (4 * place) for place, word in enumerate(words))
    return torch.where(packed >= 2**31, packed - 2**32, packed).int().contiguous()


def packed(weight_OI, group=32):
    """(tensors of the file, the weight that they stand for): symmetric, 8 is zero."""
    out, size = weight_OI.shape
    scale = (weight_OI.reshape(out, -1, group).abs().amax(-1) / 7).half()
    each = scale.float().repeat_interleave(group, 1)
    whole = (weight_OI / each).round().clamp(-8, 7)
    zeros = torch.full((size // group, out), 8 - 1)
    tensors = {
        "qweight": as_int32((whole + 8).T, 0),
        "qzeros": as_int32(zeros, 1),
        "scales": scale.T.contiguous(),
        "g_idx": (torch.arange(size) // group).int(),
    }
    return tensors, whole * each


@pytest.fixture
def written(stored):
    return lambda family, pack=packed, config=CONFIG: stored(family, pack, config)


def base(run):
    run.tokens  # noqa: B018 (what a run asks for first)
    return run._loader.load_model(run).eval()


def opened(folder, *words):
    return open_run("chat", None, ["--model_name_or_path", str(folder), *words])


def logits(model):
    with torch.no_grad():
        return model.eval()(IDS_BT, use_cache=False).logits


def test_the_plugin_keeps_the_contract():
    assert check_plugin("gptq")


@pytest.mark.skipif(not MISSING, reason="gptqmodel and optimum are installed")
def test_without_its_back_end_the_error_names_it_before_anything_is_loaded(written):
    few, _ = written("llama")
    with pytest.raises(PluginError, match=r'gptq needs .*pip install "ftk-gptq\[backend\]"'):
        opened(few).tokens  # noqa: B018


def test_without_the_plugin_the_error_names_it(written):
    few, _ = written("llama")
    with pytest.raises(PluginError, match=r"quantised with gptq needs ftk-gptq .* which is disabled"):
        opened(few, "--plugins", "{disable: [gptq]}").tokens  # noqa: B018


def test_it_quantises_nothing_while_loading(tmp_path):
    if MISSING:
        with pytest.raises(PluginError, match="gptq needs"):
            plan_in(tmp_path, quantization_method="gptq", quantization_bit=4)
        return
    with pytest.raises(ConfigError, match="only opens models whose files are quantised already"):
        plan_in(tmp_path, quantization_method="gptq", quantization_bit=4)


@needs_back_end
@pytest.mark.parametrize("family", ["llama", "mixtral", "llava"])
def test_a_model_answers_trains_is_opened_again_and_merged(tmp_path, family, written):
    few, plain = written(family)
    reference = logits(base(opened(plain)))
    run = opened(few)
    untrained = logits(base(run))
    torch.testing.assert_close(untrained, reference, atol=0.01, rtol=0)  # its products are made in 16 bits
    torch.testing.assert_close(logits(run.dequantized(base(run))), reference, atol=0.01, rtol=0)

    done = run_in(tmp_path, model_name_or_path=str(few), finetuning_type="lora", max_steps=3, learning_rate=0.01)
    assert done.metrics["train_steps"] == 3
    answers = [opened(few, f"--adapter_name_or_path={done.folder}").model(trainable=False) for _ in range(2)]
    assert torch.equal(*map(logits, answers))
    assert (logits(answers[0]) - untrained).abs().max() > 0.05
    assert answers[0].generate(IDS_BT, max_new_tokens=2, do_sample=False).shape == (1, 7)
    merging = opened(few)
    merged = _merged(merging.dequantized(base(merging)), done.folder)
    torch.testing.assert_close(logits(merged), logits(answers[0]), atol=0.02, rtol=0)


def _merged(model, folder):
    from peft import PeftModel

    return PeftModel.from_pretrained(model, str(folder)).merge_and_unload(safe_merge=True)


@needs_back_end
def test_what_cannot_be_is_refused_before_data_is_read(tmp_path, written):
    few, _ = written("llama")
    keys = {"model_name_or_path": str(few)}
    with pytest.raises(ConfigError, match="adapter:full and quantizer exclude each other"):
        Run(plan_in(tmp_path, **keys, finetuning_type="full")).tokens  # noqa: B018
    with pytest.raises(ConfigError, match="quantizer:gptq and adapter_name_or_path>1 exclude each other"):
        Run(plan_in(tmp_path, **keys, adapter_name_or_path="a,b")).tokens  # noqa: B018
    with pytest.raises(ConfigError, match=r"quantised already \(gptq, 4 bits\). Take quantization_bit out"):
        opened(few, "--quantization_bit", "8").tokens  # noqa: B018
