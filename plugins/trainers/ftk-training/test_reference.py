"""The reference of a run. Reference: the logits of the model as it was loaded, before anything was trained."""

from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from ftk import ConfigError
from ftk.run import Run
from ftk.testing.runs import plan_in
from ftk_training.reference import beside, frozen_copy, reference_of

IDS = torch.arange(40, 60)[None]


@torch.no_grad()
def logits(model):
    return model(input_ids=IDS).logits


def make(tmp_path, **settings):
    """A trainer as far as a reference asks for one, whose weights have moved since it was made."""
    tmp_path.mkdir(exist_ok=True)
    plan = plan_in(tmp_path, model_name_or_path="ftk://random/llama", template="chatml", **settings)
    run = Run(plan)
    model = run.model(trainable=True)
    before = logits(model.eval())
    trainer = SimpleNamespace(
        run=run, model=model, accelerator=Accelerator(cpu=True), is_fsdp_enabled=False, is_deepspeed_enabled=False,
        args=SimpleNamespace(device=torch.device("cpu")),
    )  # fmt: skip
    return trainer, before


def move(model):
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1


@pytest.fixture(autouse=True)
def options(monkeypatch):
    """Stages of this plugin's tests carry no reference, so its options are given by hand."""
    given = SimpleNamespace(ref_model=None, ref_model_adapters=(), ref_model_quantization_bit=None)
    taken = Run.options
    monkeypatch.setattr(
        Run, "options", lambda self, cls: given if cls.__name__ == "ReferenceOptions" else taken(self, cls)
    )
    return given


@pytest.mark.parametrize(
    ("method", "what"),
    [
        ("lora", "the model without its adapter"),
        ("full", "a frozen copy"),
        pytest.param("freeze", "a frozen copy", marks=pytest.mark.needs("ftk-freeze")),
    ],
)
def test_it_is_the_model_as_it_began(tmp_path, method, what):
    trainer, before = make(tmp_path, finetuning_type=method)
    reference = reference_of(trainer)
    move(trainer.model)
    trainer.model.train()
    with reference.model(trainer.model) as model:
        assert not model.training
        assert torch.equal(logits(model), before)
    assert reference.what == what
    assert trainer.model.training
    assert not torch.allclose(logits(trainer.model), before)


def test_merged_adapters_are_part_of_it(tmp_path):
    first, _ = make(tmp_path / "first")
    move(first.model)
    first.model.save_pretrained(tmp_path / "saved")
    changed = logits(first.model)
    trainer, before = make(tmp_path / "second", adapter_name_or_path=str(tmp_path / "saved"), create_new_adapter=True)
    torch.testing.assert_close(before, changed, rtol=1e-4, atol=1e-5)
    reference = reference_of(trainer)
    move(trainer.model)
    with reference.model(trainer.model) as model:
        torch.testing.assert_close(logits(model), before, rtol=1e-4, atol=1e-5)


def test_weights_that_learn_beside_the_adapter_make_it_a_copy(tmp_path):
    trainer, before = make(tmp_path)
    trainer.model.get_input_embeddings().requires_grad_(True)
    reference = reference_of(trainer)
    move(trainer.model)
    with reference.model(trainer.model) as model:
        torch.testing.assert_close(logits(model), before)
    assert reference.what == "a frozen copy"


def test_a_named_model_is_loaded_beside_the_run_with_its_adapters_merged(tmp_path, options):
    first, _ = make(tmp_path / "first")
    move(first.model)
    first.model.save_pretrained(tmp_path / "saved")
    options.ref_model, options.ref_model_adapters = "ftk://random/llama", (str(tmp_path / "saved"),)
    trainer, _ = make(tmp_path / "second", finetuning_type="full", bf16=True)
    reference = reference_of(trainer)
    with reference.model(trainer.model) as model:
        assert model is not trainer.model
        assert not any(parameter.requires_grad for parameter in model.parameters())
        assert model.dtype == torch.bfloat16
        torch.testing.assert_close(logits(model).float(), logits(first.model), rtol=0.05, atol=0.05)


@pytest.mark.needs("ftk-freeze")
def test_frozen_weights_are_shared_with_a_copy_and_stay_what_they_are(tmp_path):
    trainer, _ = make(tmp_path, finetuning_type="freeze", freeze_trainable_layers=1, bf16=True)
    reference_of(trainer)
    assert {one.dtype for one in trainer.model.parameters()} == {torch.float32}
    copied = dict(frozen_copy(trainer, trainer.model).named_parameters())
    for name, one in trainer.model.named_parameters():
        assert (copied[name] is one) is not one.requires_grad, name


def test_a_model_that_is_spread_cannot_be_copied(tmp_path):
    trainer, _ = make(tmp_path, finetuning_type="full")
    trainer.is_fsdp_enabled = True
    with pytest.raises(ConfigError, match="precompute_ref_log_probs"):
        reference_of(trainer)


@pytest.mark.needs("ftk-dora")
def test_settings_of_what_is_trained_do_not_reach_another_model(tmp_path):
    trainer, _ = make(tmp_path, lora_rank=4, use_dora=True, infer_dtype="bfloat16")
    run = beside(trainer.run, "model_name_or_path", "ftk://random/qwen2")
    model = run.model(trainable=False)
    assert (type(model).__name__, model.dtype) == ("Qwen2ForCausalLM", torch.bfloat16)
