"""bitsandbytes against its papers, written naively: NF4's table (Dettmers et al. 2023, appendix E), rounding to its
levels in blocks of 64 (eq. 1, 2), absmax rounding of rows (Dettmers et al. 2022, eq. 2), bytes counted by hand."""

import pytest
import torch
from ftk import ConfigError
from ftk.opening import open_run
from ftk.registry import Registry
from ftk.run import Run
from ftk.testing import check_plugin
from ftk.testing.runs import plan_in
from transformers import AutoModelForCausalLM

bitsandbytes = pytest.importorskip("bitsandbytes", reason="pip install ftk-bnb")

IDS_BT = torch.tensor([[5, 6, 7, 8, 9]])
NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
FP4 = tuple(sign * level / 12 for sign in (1, -1) for level in (0, 0.0625, 8, 12, 4, 6, 2, 3))
"""Of the paper's kernels: sign, two bits of exponent and one of mantissa, divided by the largest."""


def make(tmp_path, family="llama", **settings):
    return Run(plan_in(tmp_path, **{"model_name_or_path": f"ftk://random/{family}", "quantization_bit": 4, **settings}))


def base(run):
    run.tokens  # noqa: B018 (what a run asks for first)
    return run._loader.load_model(run).eval()


def weight_of(layer):
    weight = layer.weight
    if hasattr(weight, "quant_state"):
        return bitsandbytes.functional.dequantize_4bit(weight.data, weight.quant_state)
    return weight.data.float() * weight.SCB[:, None] / 127


def plain_weights(run):
    model = Run(plan_in(run.output_dir.parent, model_name_or_path=run.value("model_name_or_path")))
    return dict(base(model).named_parameters())


def rounded(weight_OI, levels):
    """Each weight of a block of 64 as the nearest level, times the block's largest magnitude."""
    blocks = weight_OI.reshape(-1, 64)
    scale = blocks.abs().amax(1, keepdim=True)
    levels = torch.tensor(sorted(levels))
    nearest = (blocks / scale)[:, :, None].sub(levels).abs().argmin(-1)
    return (levels[nearest] * scale).reshape(weight_OI.shape)


def test_the_plugin_keeps_the_contract():
    assert check_plugin("bnb")


def test_the_levels_of_nf4_and_fp4_are_the_published_ones():
    nf4 = bitsandbytes.functional.get_4bit_type("nf4", device="cpu")
    assert nf4.tolist() == pytest.approx(NF4, abs=1e-7)
    fp4 = bitsandbytes.functional.get_4bit_type("fp4", device="cpu")
    assert sorted(fp4.tolist()) == pytest.approx(sorted(FP4), abs=1e-3)


@pytest.mark.parametrize(("kind", "levels"), [("nf4", NF4), ("fp4", FP4)])
def test_a_4_bit_weight_is_the_nearest_level_of_its_block(tmp_path, kind, levels):
    run = make(tmp_path, quantization_type=kind, double_quantization=False)
    plain = plain_weights(run)
    for name, layer in base(run).named_modules():
        if isinstance(layer, bitsandbytes.nn.Linear4bit):
            torch.testing.assert_close(weight_of(layer), rounded(plain[f"{name}.weight"], levels), atol=1e-5, rtol=1e-3)


def test_an_8_bit_weight_is_so_many_127ths_of_the_largest_of_its_row(tmp_path):
    """From the weights in float16, as the paper has them."""
    run = make(tmp_path, quantization_bit=8)
    plain = plain_weights(run)["model.layers.0.mlp.up_proj.weight"].half().float()
    step = plain.abs().amax(1, keepdim=True) / 127
    layer = base(run).model.layers[0].mlp.up_proj
    steps = weight_of(layer) / step
    torch.testing.assert_close(steps, steps.round(), atol=1e-3, rtol=0)
    assert ((steps - plain / step).abs() < 0.501).all()


def test_the_error_falls_with_the_number_of_bits(tmp_path):
    def error(**settings):
        run = make(tmp_path, **settings)
        plain = plain_weights(run)
        layers = [one for one in base(run).named_modules() if hasattr(getattr(one[1], "weight", None), "quant_type")]
        layers = layers or [one for one in base(run).named_modules() if hasattr(getattr(one[1], "weight", None), "SCB")]
        return sum((weight_of(layer) - plain[f"{name}.weight"]).norm().item() for name, layer in layers)

    fp4, nf4, int8 = error(quantization_type="fp4"), error(), error(quantization_bit=8)
    assert fp4 > nf4 > 3 * int8 > 0


@pytest.mark.parametrize(("double", "bits"), [(False, 4 + 32 / 64), (True, 4 + 8 / 64 + 32 / (64 * 256))])
def test_double_quantisation_takes_the_papers_bits_for_each_weight(tmp_path, double, bits):
    """Section 3 of the paper: 4.5 bits with plain scales, 4.127 with quantised ones, and tables that do not grow."""
    layer = base(make(tmp_path, "llama?hidden_size=512", double_quantization=double)).model.layers[0].self_attn.q_proj
    state = layer.weight.quant_state
    scales = [state.absmax] if not double else [state.absmax, state.state2.absmax]
    size = sum(one.numel() * one.element_size() for one in (layer.weight.data, *scales))
    assert 8 * size / (512 * layer.out_features) == pytest.approx(bits, rel=0.001)


@pytest.mark.parametrize(
    ("settings", "dtype"),
    [
        ({"bf16": True}, torch.bfloat16),
        ({"pure_bf16": True}, torch.bfloat16),
        ({}, torch.float32),
        ({"model_name_or_path": "ftk://random/llama?dtype=bfloat16"}, torch.bfloat16),
    ],
)
def test_products_are_made_in_the_type_of_the_run(tmp_path, settings, dtype):
    run = make(tmp_path, **settings)
    assert base(run).model.layers[0].self_attn.q_proj.compute_dtype == dtype


def test_fp16_and_infer_dtype_are_followed_too(tmp_path):
    from ftk_bnb.few_bits import compute_dtype

    assert compute_dtype(make(tmp_path, fp16=True)) == torch.float16
    words = ["--model_name_or_path", "ftk://random/llama", "--quantization_bit", "4", "--infer_dtype", "bfloat16"]
    assert compute_dtype(open_run("chat", None, words)) == torch.bfloat16


@pytest.mark.parametrize(
    ("family", "stays"),
    [
        ("llama", {"lm_head", "embed_tokens"}),
        ("mixtral", {"lm_head", "embed_tokens", "gate_up_proj", "down_proj"}),
        ("llava", {"lm_head", "embed_tokens", "vision_tower", "multi_modal_projector"}),
    ],
)
def test_what_stays_as_it_is(tmp_path, family, stays, caplog):
    """The output layer and embeddings, towers and projectors, and the fused experts of a mixture, which is said."""
    with caplog.at_level("WARNING", logger="ftk.hf"):
        model = base(make(tmp_path, family))
    plain = {name for name, one in model.named_parameters() if one.ndim > 1 and one.is_floating_point()}
    for part in stays:
        assert any(part in name for name in plain), part
    assert all(any(part in name for part in (*stays, "gate.weight")) for name in plain)
    warned = any("are not quantised: experts.gate_up_proj" in record.getMessage() for record in caplog.records)
    assert warned == (family == "mixtral")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"finetuning_type": "full"}, "adapter:full and quantizer exclude each other"),
        ({"adapter_name_or_path": "a,b"}, "quantizer:bnb and adapter_name_or_path>1 exclude each other"),
        ({"adapter_name_or_path": "a", "create_new_adapter": True}, "create_new_adapter and quantizer exclude each"),
        ({"finetuning_type": "freeze"}, "adapter:freeze and quantizer exclude each other"),
        ({"pissa_init": True}, "pissa and quantizer exclude each other"),
        ({"resize_vocab": True}, "resize_vocab and quantizer exclude each other"),
        ({"train_from_scratch": True}, "train_from_scratch and quantizer exclude each other"),
        ({"quantization_device_map": "auto"}, "quantization_device_map and trainer exclude each other"),
        ({"quantization_bit": 8, "quantization_type": "fp4"}, "quantization_type needs quantization_bit=4"),
        ({"quantization_bit": 3}, "quantization_bit: 3: bnb can do 4, 8"),
    ],
)
def test_what_cannot_be_is_refused_by_the_plan(tmp_path, settings, said):
    registry = Registry.discover()
    if unknown := [key for key in settings if key not in registry.options]:
        pytest.skip(f"{unknown[0]} belongs to a plugin that is not installed")
    if settings.get("finetuning_type", "full") not in registry.specs("adapter"):
        pytest.skip(f"ftk-{settings['finetuning_type']} is not installed")
    with pytest.raises(ConfigError) as error:
        make(tmp_path, **settings)
    assert said in str(error.value)


@pytest.fixture(scope="module", params=[4, 8])
def stored(request, tmp_path_factory):
    """(bits, folder of a model that was saved quantised, its logits)."""
    folder = tmp_path_factory.mktemp("stored")
    run = make(folder, quantization_bit=request.param)
    model = base(run)
    model.save_pretrained(folder / "model")
    run.tokenizer.save_pretrained(folder / "model")
    with torch.no_grad():
        return request.param, folder / "model", model(IDS_BT).logits


def test_a_stored_model_needs_no_key(stored):
    _, folder, logits = stored
    run = open_run("chat", None, ["--model_name_or_path", str(folder)])
    with torch.no_grad():
        torch.testing.assert_close(base(run)(IDS_BT).logits, logits)
    assert run.plan.one("quantizer").name == "bnb"


def test_a_stored_model_can_be_saved_with_plain_weights(stored, tmp_path):
    _, folder, logits = stored
    run = open_run("chat", None, ["--model_name_or_path", str(folder)])
    run.dequantized(base(run)).save_pretrained(tmp_path / "plain")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "plain")
    assert {one.dtype for one in plain.parameters()} == {torch.float32}
    with torch.no_grad():
        torch.testing.assert_close(plain(IDS_BT).logits, logits, atol=5e-3, rtol=0)


def test_a_stored_model_is_held_against_the_rest_of_the_run(stored, tmp_path, caplog):
    bits, folder, _ = stored
    settings = {"model_name_or_path": str(folder), "quantization_bit": None}
    with pytest.raises(ConfigError, match="adapter:full and quantizer exclude each other"):
        make(tmp_path, **settings, finetuning_type="full").tokens  # noqa: B018
    with pytest.raises(ConfigError, match=rf"quantised already \(bitsandbytes, {bits} bits\). Take"):
        make(tmp_path, **{**settings, "quantization_bit": 12 - bits}).tokens  # noqa: B018
    with caplog.at_level("WARNING", logger="ftk.hf"):
        make(tmp_path, **{**settings, "quantization_bit": bits}).tokens  # noqa: B018
    assert f"quantization_bit: {bits} has no effect: the model's files are quantised already" in caplog.text


def test_a_stored_model_computes_in_the_type_of_the_run_that_opens_it(tmp_path):
    run = make(tmp_path)
    base(run).save_pretrained(tmp_path / "model")
    run.tokenizer.save_pretrained(tmp_path / "model")
    again = make(tmp_path, model_name_or_path=str(tmp_path / "model"), quantization_bit=None, bf16=True)
    assert base(again).model.layers[0].self_attn.q_proj.compute_dtype == torch.bfloat16
