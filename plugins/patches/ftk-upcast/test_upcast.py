"""Upcast norms against the same norm computed in float64 from half precision inputs."""

import json

import pytest
import torch
from ftk.opening import open_run
from ftk.run import Run
from ftk.testing import check_plugin, run_in
from ftk.testing.runs import plan_in

HALF = {"pure_bf16": True, "finetuning_type": "full"}


def test_the_plugin_keeps_the_contract():
    assert check_plugin("upcast")


def loaded(tmp_path, address, **more):
    return Run(plan_in(tmp_path, model_name_or_path=address, **{**HALF, **more})).model(trainable=True)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "qwen3", "cohere", "mixtral"])
def test_norms_compute_in_float32_and_return_the_models_type(tmp_path, family):
    model = loaded(tmp_path, f"ftk://random/{family}", upcast_layernorm=True)
    norms = [module for module in model.modules() if "Norm" in type(module).__name__]
    assert norms
    assert {weight.dtype for norm in norms for weight in norm.parameters()} == {torch.float32}
    assert model.get_input_embeddings().weight.dtype == torch.bfloat16
    norm = norms[0]
    torch.nn.init.normal_(norm.weight)
    states = torch.randn(3, norm.weight.shape[-1]).bfloat16()
    exact = type(norm).forward(norm.double(), states.double())
    assert torch.equal(norm.float()(states), exact.to(torch.bfloat16)), "one rounding, at the end"
    ids = torch.arange(9)[None]
    model(ids, labels=ids).loss.backward()
    assert norm.weight.grad.dtype == torch.float32


def test_logits_are_float32(tmp_path):
    model = loaded(tmp_path, "ftk://random/llama", upcast_lmhead_output=True)
    assert model(torch.arange(9)[None]).logits.dtype == torch.float32
    assert loaded(tmp_path, "ftk://random/llama")(torch.arange(9)[None]).logits.dtype == torch.bfloat16


def losses(folder):
    return [json.loads(line)["loss"] for line in (folder / "trainer_log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("more", [HALF, {"bf16": True}, {"finetuning_type": "full"}], ids=["pure", "mixed", "float32"])
def test_a_run_trains_saves_resumes_and_answers(tmp_path, more):
    settings = {"template": "chatml", "max_steps": 3, "upcast_layernorm": True, "upcast_lmhead_output": True, **more}
    finished = run_in(tmp_path, **settings, save_strategy="steps", save_steps=2)
    again = run_in(
        tmp_path, **settings, output_dir=str(tmp_path / "again"),
        resume_from_checkpoint=str(finished.folder / "checkpoint-2"),
    )  # fmt: skip
    assert losses(again.folder)[-1] == losses(finished.folder)[-1]
    model = open_run("chat", str(finished.folder)).model(trainable=False)
    assert len({weight.dtype for weight in model.parameters()}) == 1
    assert torch.isfinite(model(torch.arange(9)[None]).logits).all()


def test_in_float32_nothing_changes(tmp_path):
    found = []
    for on in (True, False):
        more = {"upcast_layernorm": on, "upcast_lmhead_output": on, "output_dir": str(tmp_path / str(on))}
        found.append(losses(run_in(tmp_path, template="chatml", max_steps=3, **more).folder))
    assert found[0] == found[1]
