"""FP8's files written by hand after the layout that DeepSeek published: torch's own e4m3 numbers and, for each block of
32 x 32, what they are multiplied with; the same numbers in a plain model are the reference."""

import json
import shutil

import pytest
import torch
from ftk.opening import open_run
from ftk.run import Run
from ftk.testing import check_plugin
from ftk.testing.runs import plan_in, run_in
from safetensors.torch import load_file, save_file

IDS_BT = torch.tensor([[5, 6, 7, 8, 9]])
CONFIG = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [32, 32]}


def written(tmp_path, family, config, convert):
    """(folder of a quantised model, folder of a plain one with the same numbers).

    convert: (name, weight) → (tensors of the file, weight that they stand for), or None for what stays.
    """
    source = open_run("chat", None, ["--model_name_or_path", f"ftk://random/{family}"]).model_path
    folders = [shutil.copytree(source, tmp_path / name) for name in ("quantised", "plain")]
    few, plain = {}, {}
    for name, value in load_file(folders[0] / "model.safetensors").items():
        made = convert(name, value)
        few |= made[0] if made else {name: value}
        plain[name] = made[1] if made else value
    for folder, content in zip(folders, (few, plain), strict=True):
        save_file(content, folder / "model.safetensors", {"format": "pt"})
    text = json.loads((folders[0] / "config.json").read_text())
    (folders[0] / "config.json").write_text(json.dumps({**text, "quantization_config": config}))
    return folders


def base(folder):
    run = open_run("chat", None, ["--model_name_or_path", str(folder), "--infer_dtype", "float32"])
    run.tokens  # noqa: B018 (what a run asks for first)
    return run._loader.load_model(run).eval()


def logits(model):
    with torch.no_grad():
        return model(IDS_BT, use_cache=False).logits


def packed(name, weight_OI):
    """weight (O, I) e4m3; weight_scale_inv (O / 32, I / 32) float32."""
    if not name.endswith("_proj.weight"):
        return None
    blocks = weight_OI.unflatten(0, (-1, 32)).unflatten(2, (-1, 32))
    scale = blocks.abs().amax((1, 3), keepdim=True) / 448
    few = (blocks / scale).to(torch.float8_e4m3fn)
    plain = (few.float() * scale).flatten(2).flatten(0, 1)
    tensors = {name: few.flatten(2).flatten(0, 1), f"{name}_scale_inv": scale[:, 0, :, 0].contiguous()}
    return tensors, plain


def test_the_plugin_keeps_the_contract():
    assert check_plugin("fp8")


@pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU the weights stay as they are")
def test_a_model_that_answers_gets_the_numbers_of_its_files(tmp_path):
    few, plain = written(tmp_path, "llama", CONFIG, packed)
    torch.testing.assert_close(logits(base(few)), logits(base(plain)), atol=1e-2, rtol=0)


@pytest.mark.parametrize("way", ["lora", "full"])
def test_training_has_plain_weights_and_every_way_open(tmp_path, way):
    few, plain = written(tmp_path, "llama", CONFIG, packed)
    run = Run(plan_in(tmp_path, model_name_or_path=str(few), finetuning_type=way))
    run.tokens  # noqa: B018
    model = run._loader.load_model(run)
    assert not getattr(model, "is_quantized", False)
    assert run.plan.one("quantizer") is None
    torch.testing.assert_close(logits(model.float().eval()), logits(base(plain)), atol=1e-2, rtol=0)
    done = run_in(tmp_path, model_name_or_path=str(few), finetuning_type=way, max_steps=3)
    assert done.metrics["train_steps"] == 3
    again = [open_run("chat", str(done.folder)).model(trainable=False).eval() for _ in range(2)]
    assert torch.equal(*map(logits, again))
