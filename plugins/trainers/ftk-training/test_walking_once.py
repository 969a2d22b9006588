"""Cheap steps. Reference: the same run with the steps as transformers takes them, walks and questions and all."""

import copy
import json
from contextlib import nullcontext
from types import SimpleNamespace

import accelerate.optimizer
import pytest
import torch
from accelerate import DistributedType
from ftk_training.walking_once import parameters_of, walking_once, walks_once
from torch import nn

RUN = {
    "max_steps": 4, "finetuning_type": "lora", "lora_dropout": 0.2, "per_device_train_batch_size": 1, "val_size": 0.25,
    "eval_strategy": "steps", "eval_steps": 2, "max_grad_norm": 0.1, "logging_steps": 1,
}  # fmt: skip


def trainer_of(kind=DistributedType.NO, **args):
    args = SimpleNamespace(**{"n_gpu": 1, "torch_compile": False, **args})
    return SimpleNamespace(args=args, accelerator=SimpleNamespace(distributed_type=kind))


def log_of(finished):
    lines = [json.loads(line) for line in (finished.folder / "trainer_log.jsonl").read_text().splitlines()]
    timed = ("seconds", "tokens_per_second", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second")
    return [{name: value for name, value in line.items() if name not in timed} for line in lines]


def test_a_run_is_the_same_to_the_last_digit_and_walks_only_around_evaluations(ftk_run, tmp_path, monkeypatch):
    walks, train = [], nn.Module.train
    monkeypatch.setattr(nn.Module, "train", lambda self, mode=True: walks.append(type(self)) or train(self, mode))
    cheap = log_of(ftk_run(**RUN, output_dir=str(tmp_path / "cheap")))
    few = [mode for mode in walks if mode.__name__ == "PeftModelForCausalLM"]
    walks.clear()
    for module in ("trainer.walking_once", "fitting.asking_once"):
        monkeypatch.setattr(f"ftk_training.{module}", lambda *_: nullcontext())
    assert cheap == log_of(ftk_run(**RUN, output_dir=str(tmp_path / "own")))
    assert {"grad_norm", "loss"} <= cheap[0].keys()
    assert any("eval_loss" in line for line in cheap)
    assert len(few) < len([mode for mode in walks if mode.__name__ == "PeftModelForCausalLM"])


def test_a_package_that_nobody_uses_is_looked_for_once_in_a_run(ftk_run, monkeypatch):
    asked = []
    question = lambda: bool(asked.append(1))  # noqa: E731
    monkeypatch.setattr(accelerate.optimizer, "is_lomo_available", question)
    ftk_run(max_steps=3)
    assert asked == [1]
    assert accelerate.optimizer.is_lomo_available is question


def test_a_model_in_evaluation_is_set_to_training_and_gradients_are_dropped():
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout()).eval()
    with walking_once(trainer_of(), model):
        assert all(one.training for one in model.modules())
        model(torch.ones(1, 2)).sum().backward()
        model.eval()
        assert not any(one.training for one in model.modules())
        model.train()
        assert all(one.training for one in model.modules())
        model.zero_grad()
        assert all(one.grad is None for one in model.parameters())
        assert [id(one) for one in parameters_of(model)] == [id(one) for one in model.parameters()]
    assert not vars(model).keys() & {"train", "zero_grad"}
    assert not walks_once(model)


def test_a_model_whose_inner_one_was_asked_something_is_set_to_training():
    model = nn.Sequential(nn.Sequential(nn.Dropout()))
    model.get_base_model = lambda: model[0]
    with walking_once(trainer_of(), model):
        model[0].eval()
        model.train()
        assert model[0][0].training


def test_a_copy_drops_its_own_gradients():
    model = nn.Linear(2, 2)
    with walking_once(trainer_of(), model):
        other = copy.deepcopy(model)
        for one in (model, other):
            one(torch.ones(1, 2)).sum().backward()
        other.zero_grad()
    assert model.weight.grad is not None
    assert other.weight.grad is None


@pytest.mark.parametrize(
    "trainer",
    [trainer_of(DistributedType.FSDP), trainer_of(DistributedType.DEEPSPEED), trainer_of(n_gpu=2),
     trainer_of(torch_compile=True)],
    ids=["fsdp", "deepspeed", "split", "compiled"],
)  # fmt: skip
def test_a_model_that_is_spread_or_compiled_is_left_alone(trainer):
    model = nn.Linear(2, 2)
    with walking_once(trainer, model):
        assert not walks_once(model)
