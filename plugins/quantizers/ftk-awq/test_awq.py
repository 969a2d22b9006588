"""AWQ's files packed by hand after their published layout, and the same numbers in a plain model as the reference.

qweight (I, O / 8) int32, eight weights of a row in the order 0, 2, 4, 6, 1, 3, 5, 7 from the low bits on; scales
(I / group, O); zero points (I / group, O / 8), packed like the weights.
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
    Registry.discover().find("quantizer", "awq")
    MISSING = ""
except PluginError as error:
    MISSING = str(error)
needs_back_end = pytest.mark.skipif(bool(MISSING), reason=MISSING)

IDS_BT = torch.tensor([[5, 6, 7, 8, 9]])
CONFIG = {
    "quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm",
    "modules_to_not_convert": ["vision_tower", "multi_modal_projector"],
}  # fmt: skip
"""What is spared is written without ``model.``, as files for transformers 4 have it."""
ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def as_int32(nibbles):
    """Eight neighbours below 16 of a row in each 32-bit word."""
    words = nibbles.long().unflatten(1, (-1, 8))
    packed = sum(words[:, :, column] << (4 * place) for place, column in enumerate(ORDER))
    return torch.where(packed >= 2**31, packed - 2**32, packed).int().contiguous()


def packed(weight_OI, group=32):
    """(tensors of the file, the weight that they stand for): 16 values from the smallest to the largest of a group."""
    groups = weight_OI.reshape(len(weight_OI), -1, group)
    low, high = groups.amin(-1).clamp(max=0), groups.amax(-1).clamp(min=0)
    scale = ((high - low) / 15).half()
    zero = (-low / scale.float()).round().clamp(0, 15)
    each, around = (one.float().repeat_interleave(group, 1) for one in (scale, zero))
    whole = ((weight_OI / each).round() + around).clamp(0, 15)
    tensors = {"qweight": as_int32(whole.T), "qzeros": as_int32(zero.T), "scales": scale.T.contiguous()}
    return tensors, (whole - around) * each


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
    assert check_plugin("awq")


@pytest.mark.skipif(not MISSING, reason="gptqmodel is installed")
def test_without_its_back_end_the_error_names_it_before_anything_is_loaded(written):
    few, _ = written("llama")
    with pytest.raises(PluginError, match=r'awq needs .*pip install "ftk-awq\[backend\]"'):
        opened(few).tokens  # noqa: B018


def test_without_the_plugin_the_error_names_it(written):
    few, _ = written("llama")
    with pytest.raises(PluginError, match=r"quantised with awq needs ftk-awq .* which is disabled"):
        opened(few, "--plugins", "{disable: [awq]}").tokens  # noqa: B018


def test_it_quantises_nothing_while_loading(tmp_path):
    if MISSING:
        with pytest.raises(PluginError, match="awq needs"):
            plan_in(tmp_path, quantization_method="awq", quantization_bit=4)
        return
    with pytest.raises(ConfigError, match="only opens models whose files are quantised already"):
        plan_in(tmp_path, quantization_method="awq", quantization_bit=4)


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
    with pytest.raises(ConfigError, match="quantizer:awq and adapter_name_or_path>1 exclude each other"):
        Run(plan_in(tmp_path, **keys, adapter_name_or_path="a,b")).tokens  # noqa: B018
    with pytest.raises(ConfigError, match=r"quantised already \(awq, 4 bits\). Take quantization_bit out"):
        opened(few, "--quantization_bit", "8").tokens  # noqa: B018
