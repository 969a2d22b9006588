"""Unsloth's CPU fallback, where it is installed, against the default loader: the same losses and the same adapter.

A stand-in shows elsewhere what it is asked for.
"""

import importlib.util
import json
import sys
from types import SimpleNamespace

import pytest
import torch
from ftk import ConfigError, ModelError, PluginError
from ftk.opening import open_run
from ftk.run import Run
from ftk.testing import check_plugin, run_in
from ftk.testing.runs import plan_in

INSTALLED = importlib.util.find_spec("unsloth") is not None
needs_unsloth = pytest.mark.skipif(not INSTALLED, reason="needs unsloth, in an environment of its own")


def test_the_plugin_keeps_the_contract():
    assert check_plugin("unsloth")


@pytest.mark.skipif(INSTALLED, reason="unsloth is installed")
@pytest.mark.parametrize("key", [{"use_unsloth": True}, {"model_loader": "unsloth"}], ids=str)
def test_without_the_package_the_plan_says_what_to_install(tmp_path, key):
    with pytest.raises(PluginError, match=r'unsloth needs unsloth. pip install "ftk-unsloth\[backend\]"'):
        plan_in(tmp_path, **key)


class StandIn:
    """What ftk calls of ``unsloth.FastLanguageModel``."""

    asked = None
    patched = None

    @classmethod
    def from_pretrained(cls, path, **asked):
        cls.asked = asked
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(path), None

    @classmethod
    def patch_peft_model(cls, model, use_gradient_checkpointing):
        cls.patched = model
        return model


@pytest.fixture
def stand_in(monkeypatch):
    monkeypatch.setattr("ftk.plugins._is_installed", lambda package: True)
    monkeypatch.setitem(sys.modules, "unsloth", SimpleNamespace(FastLanguageModel=StandIn))


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(
    ("settings", "asked"),
    [
        ({}, {"dtype": torch.float32, "full_finetuning": False, "load_in_4bit": False, "max_seq_length": 64}),
        ({"bf16": True, "cutoff_len": 32}, {"dtype": torch.bfloat16, "max_seq_length": 32}),
        ({"finetuning_type": "full", "use_unsloth": False, "model_loader": "unsloth"}, {"full_finetuning": True}),
        ({"trust_remote_code": True, "model_revision": "v2"}, {"trust_remote_code": True, "revision": "v2"}),
    ],
    ids=["lora", "bf16", "full", "access"],
)
def test_unsloth_is_asked_for_what_the_yaml_says(tmp_path, settings, asked):
    settings = {"model_name_or_path": "ftk://random/llama", "use_unsloth": True, **settings}
    run = Run(plan_in(tmp_path, **settings))
    assert run.plan.one("model_loader").name == "unsloth"
    model = run.model(trainable=True)
    assert {key: StandIn.asked[key] for key in asked} == asked
    if "finetuning_type" not in settings:
        assert StandIn.patched is model, "LoRA terms go through Unsloth's kernels"


@pytest.mark.usefixtures("stand_in")
def test_a_model_that_sees_is_refused(tmp_path):
    with pytest.raises(ModelError, match="llava models see or hear"):
        _ = Run(plan_in(tmp_path, model_name_or_path="ftk://random/llava", use_unsloth=True)).tokens


@pytest.mark.usefixtures("stand_in")
def test_what_does_not_go_together_is_refused_by_the_plan(tmp_path):
    with pytest.raises(ConfigError, match="model_loader:unsloth and train_from_scratch exclude each other"):
        plan_in(tmp_path, model_loader="unsloth", train_from_scratch=True)
    with pytest.raises(ConfigError, match="use_unsloth: needs adapter:lora"):
        plan_in(tmp_path, use_unsloth=True, finetuning_type="full")


@needs_unsloth
@pytest.mark.parametrize("finetuning_type", ["lora", "full"])
def test_training_with_unsloth_is_training(tmp_path, finetuning_type):
    settings = {
        "model_name_or_path": "ftk://random/llama", "finetuning_type": finetuning_type, "template": "chatml",
        "max_steps": 3, "save_strategy": "steps", "save_steps": 2,
    }  # fmt: skip
    key = {"use_unsloth": True} if finetuning_type == "lora" else {"model_loader": "unsloth"}
    one = run_in(tmp_path, **settings, **key, output_dir=str(tmp_path / "unsloth"))
    other = run_in(tmp_path, **settings, output_dir=str(tmp_path / "plain"))
    again = run_in(
        tmp_path, **settings, **key, output_dir=str(tmp_path / "again"),
        resume_from_checkpoint=str(one.folder / "checkpoint-2"),
    )  # fmt: skip
    losses = [
        [json.loads(line)["loss"] for line in (done.folder / "trainer_log.jsonl").open()]
        for done in (one, other, again)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[2][-1] == losses[0][-1]
    ids = torch.arange(9)[None] + 5
    with torch.no_grad():
        logits = [
            open_run("chat", str(done.folder), ["--infer_dtype", "float32"]).model(trainable=False).eval()(ids).logits
            for done in (one, other)
        ]
    torch.testing.assert_close(logits[0].float(), logits[1].float(), rtol=1e-3, atol=1e-4)
