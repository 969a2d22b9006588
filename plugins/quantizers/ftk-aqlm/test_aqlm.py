"""AQLM against its paper (Egiazarian et al. 2024, eq. 2) written naively: a group of eight weights is a sum of entries,
one of each code book, times the scale of its row. Codes and books are random; a plain model has the same numbers.

codes (O, I / 8, 2) int8, signed; codebooks (2, 256, 1, 8); scales (O, 1, 1, 1).
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
    Registry.discover().find("quantizer", "aqlm")
    MISSING = ""
except PluginError as error:
    MISSING = str(error)
needs_back_end = pytest.mark.skipif(bool(MISSING), reason=MISSING)

IDS_BT = torch.tensor([[5, 6, 7, 8, 9]])
CONFIG = {
    "quant_method": "aqlm", "in_group_size": 8, "out_group_size": 1, "num_codebooks": 2, "nbits_per_codebook": 8,
    "linear_weights_not_to_quantize": ["lm_head.weight", "model.embed_tokens.weight"],
}  # fmt: skip
"""What is spared is written as transformers 4 wrote it: names of weights."""


def packed(weight_OI):
    """(tensors of the file, the weight that they stand for)."""
    out, size = weight_OI.shape
    random = torch.Generator().manual_seed(0)
    books = 0.02 * torch.randn(2, 256, 1, 8, generator=random)
    codes = torch.randint(0, 256, (out, size // 8, 2), generator=random)
    scales = 0.5 + torch.rand(out, 1, 1, 1, generator=random)
    plain = torch.empty(out, size)
    for row in range(out):
        for group in range(size // 8):
            first, second = (books[book, codes[row, group, book], 0] for book in range(2))
            plain[row, 8 * group : 8 * group + 8] = (first + second) * scales[row, 0, 0, 0]
    signed = torch.where(codes > 127, codes - 256, codes).to(torch.int8)
    return {"codes": signed, "codebooks": books, "scales": scales}, plain


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
    assert check_plugin("aqlm")


@pytest.mark.skipif(not MISSING, reason="aqlm is installed")
def test_without_its_back_end_the_error_names_it_before_anything_is_loaded(written):
    few, _ = written("llama")
    with pytest.raises(PluginError, match=r'aqlm needs .*pip install "ftk-aqlm\[backend\]"'):
        opened(few).tokens  # noqa: B018


def test_without_the_plugin_the_error_names_it(written):
    few, _ = written("llama")
    with pytest.raises(PluginError, match=r"quantised with aqlm needs ftk-aqlm .* which is disabled"):
        opened(few, "--plugins", "{disable: [aqlm]}").tokens  # noqa: B018


def test_it_quantises_nothing_while_loading(tmp_path):
    if MISSING:
        with pytest.raises(PluginError, match="aqlm needs"):
            plan_in(tmp_path, quantization_method="aqlm", quantization_bit=4)
        return
    with pytest.raises(ConfigError, match="only opens models whose files are quantised already"):
        plan_in(tmp_path, quantization_method="aqlm", quantization_bit=4)


@needs_back_end
@pytest.mark.parametrize("family", ["llama", "mixtral"])
def test_a_model_answers_trains_is_opened_again_and_merged(tmp_path, family, written):
    few, plain = written(family)
    reference = logits(base(opened(plain)))
    run = opened(few)
    untrained = logits(base(run))
    torch.testing.assert_close(untrained, reference)
    torch.testing.assert_close(logits(run.dequantized(base(run))), reference)

    done = run_in(tmp_path, model_name_or_path=str(few), finetuning_type="lora", max_steps=3, learning_rate=0.01)
    assert done.metrics["train_steps"] == 3
    answers = [opened(few, f"--adapter_name_or_path={done.folder}").model(trainable=False) for _ in range(2)]
    assert torch.equal(*map(logits, answers))
    assert (logits(answers[0]) - untrained).abs().max() > 0.05
    assert answers[0].generate(IDS_BT, max_new_tokens=2, do_sample=False).shape == (1, 7)
    merging = opened(few)
    merged = _merged(merging.dequantized(base(merging)), done.folder)
    torch.testing.assert_close(logits(merged), logits(answers[0]))


def _merged(model, folder):
    from peft import PeftModel

    return PeftModel.from_pretrained(model, str(folder)).merge_and_unload(safe_merge=True)


@needs_back_end
def test_what_cannot_be_is_refused_before_data_is_read(tmp_path, written):
    few, _ = written("llama")
    keys = {"model_name_or_path": str(few)}
    with pytest.raises(ConfigError, match="adapter:full and quantizer exclude each other"):
        Run(plan_in(tmp_path, **keys, finetuning_type="full")).tokens  # noqa: B018
    with pytest.raises(ConfigError, match="quantizer:aqlm and adapter_name_or_path>1 exclude each other"):
        Run(plan_in(tmp_path, **keys, adapter_name_or_path="a,b")).tokens  # noqa: B018


@needs_back_end
def test_the_gradient_of_a_product_is_that_of_a_plain_one():
    from ftk_aqlm.products import Product

    torch.manual_seed(0)
    tensors, plain = packed(torch.empty(12, 16))
    x, y = (torch.linspace(-1, 1, 5 * 16).reshape(5, 16).requires_grad_() for _ in range(2))
    gradient = torch.randn(5, 12)
    ours = Product.apply(x, tensors["codes"], tensors["codebooks"], tensors["scales"], torch.ones(12))
    theirs = torch.nn.functional.linear(y, plain, torch.ones(12))
    torch.testing.assert_close(ours, theirs)
    ours.backward(gradient)
    theirs.backward(gradient)
    torch.testing.assert_close(x.grad, y.grad)
