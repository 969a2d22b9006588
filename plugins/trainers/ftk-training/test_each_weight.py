"""Optimizers made of rules. References: torch.optim.AdamW, and transformers' Trainer for what decays."""

from dataclasses import dataclass, field

import pytest
import torch
from ftk import CheckpointError, ConfigError
from ftk.run import Run
from ftk.testing.runs import plan_in
from ftk_training import each_weight, learning, matrices
from ftk_training.adamw import AdamW
from ftk_training.each_weight import UNSAVED, EachWeight, Part
from torch import nn

SETTINGS = {"lr": 0.01, "betas": (0.9, 0.99), "eps": 1e-8}
MODEL = "ftk://random/llama?attention_bias=true"


@dataclass(frozen=True)
class Halve:
    """Half of the weight, and a float32 memory of it whatever the weight's type."""

    strength: float = 0.5
    known: dict = field(default_factory=dict, metadata=UNSAVED)

    def update(self, weight, gradient, state, group):
        state["step"] = state.get("step", 0) + 1
        state["memory"] = torch.full_like(weight, 1 / 3, dtype=torch.float32)
        state["codes"] = torch.arange(5, dtype=torch.uint8)
        weight.mul_(self.strength)


def weights(count=2, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(4, 3, generator=generator).to(dtype)) for _ in range(count)]


def fill(params, seed):
    generator = torch.Generator().manual_seed(seed)
    for one in params:
        one.grad = torch.randn(one.shape, generator=generator).to(one.dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_rule_adamw_is_torch_optim_adamw_bit_for_bit(dtype):
    ours, theirs = weights(dtype=dtype), weights(dtype=dtype)
    optimizer = EachWeight([(Part(AdamW(), ours), {"weight_decay": 0.1})], **SETTINGS)
    reference = torch.optim.AdamW(theirs, weight_decay=0.1, foreach=False, **SETTINGS)
    for seed in range(5):
        fill(ours, seed)
        fill(theirs, seed)
        optimizer.step()
        reference.step()
        assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_a_weight_without_gradient_stays_as_it_is():
    first, second = weights()
    before = second.detach().clone()
    optimizer = EachWeight([(Part(Halve(), [first, second]), {})], **SETTINGS)
    fill([first], 0)
    optimizer.step()
    assert torch.equal(second, before)
    assert second not in optimizer.state


def test_a_state_comes_back_in_the_types_that_it_was_saved_in(tmp_path):
    """torch.optim.Optimizer makes it the type of the weight: bytes and float32 would become bfloat16."""
    params = weights(dtype=torch.bfloat16)
    optimizer = EachWeight([(Part(Halve(), params), {})], **SETTINGS)
    fill(params, 0)
    optimizer.step()
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    again = weights(dtype=torch.bfloat16)
    loaded = EachWeight([(Part(Halve(), again), {})], **SETTINGS)
    loaded.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for one in again:
        state = loaded.state[one]
        assert (state["memory"].dtype, state["codes"].dtype, state["step"]) == (torch.float32, torch.uint8, 1)
        assert torch.equal(state["memory"], torch.full((4, 3), 1 / 3))


def test_a_state_of_another_rule_or_other_settings_is_refused():
    saved = EachWeight([(Part(Halve(), weights()), {})], **SETTINGS).state_dict()
    EachWeight([(Part(Halve(known={"a": 1}), weights()), {})], **SETTINGS).load_state_dict(saved)
    with pytest.raises(CheckpointError, match=r"Halve\(strength=0.5\) instead of Halve\(strength=0.1\)"):
        EachWeight([(Part(Halve(0.1), weights()), {})], **SETTINGS).load_state_dict(saved)
    with pytest.raises(CheckpointError, match="made by another optimizer"):
        EachWeight([(Part(AdamW(), weights()), {})], **SETTINGS).load_state_dict(saved)
    plain = torch.optim.AdamW(weights()).state_dict()
    with pytest.raises(CheckpointError, match="made by another optimizer"):
        EachWeight([(Part(AdamW(), weights()), {})], **SETTINGS).load_state_dict(plain)


def test_layerwise_updates_in_the_backward_pass_and_keeps_no_gradient():
    params = weights()
    optimizer = EachWeight([(Part(AdamW(), params), {})], **SETTINGS, layerwise=True)
    twins = weights()
    reference = torch.optim.AdamW(twins, weight_decay=0.0, foreach=False, **SETTINGS)
    for _ in range(3):
        reference.zero_grad()
        (params[0] * params[1]).sum().backward()
        (twins[0] * twins[1]).sum().backward()
        norm = torch.stack([one.grad.norm() for one in twins]).norm()
        reference.step()
        assert all(one.grad is None for one in params)
        torch.testing.assert_close(optimizer.take_gradient_norm(), norm)
        optimizer.step()
        assert all(torch.equal(one, other) for one, other in zip(params, twins, strict=True))
    assert float(optimizer.take_gradient_norm()) == 0


def run_of(tmp_path, **settings):
    return Run(plan_in(tmp_path, **{"model_name_or_path": MODEL, "finetuning_type": "full", **settings}))


def test_settings_come_from_the_run_and_decay_spares_what_the_trainer_spares(tmp_path):
    values = {"learning_rate": 0.1, "adam_beta1": 0.8, "adam_beta2": 0.9, "adam_epsilon": 1e-6, "weight_decay": 0.3}
    run = run_of(tmp_path, **values)
    model = run.model(trainable=True)
    optimizer = each_weight.make(run, model, [Part(AdamW(), matrices.learning(model))])
    names = {id(weight): name for name, weight in model.named_parameters()}
    decays = {
        names[id(weight)]: group["weight_decay"] for group in optimizer.param_groups for weight in group["params"]
    }
    spared = {name for name in names.values() if "norm" in name or name.endswith("bias")}
    assert decays == {name: 0.0 if name in spared else 0.3 for name in names.values()}
    for group in optimizer.param_groups:
        assert (group["lr"], group["betas"], group["eps"]) == (0.1, (0.8, 0.9), 1e-6)


@pytest.mark.parametrize("layerwise", [False, True])
def test_weights_with_learning_rates_of_their_own_keep_their_rule(tmp_path, layerwise):
    """An adapter may split the groups (``ftk_training.learning.set_rates``)."""
    run = run_of(tmp_path)
    model = run.model(trainable=True)
    learning.set_rates(run, lambda name, _: 0.5 if "layers.0.self_attn.q_proj.weight" in name else None)
    query, key = (getattr(model.model.layers[0].self_attn, name).weight for name in ("q_proj", "k_proj"))
    option = "some_layerwise" if layerwise else ""
    optimizer = each_weight.make(run, model, [Part(Halve(), [query]), Part(AdamW(), [key])], layerwise=option)
    learning.split_rates(run, model, optimizer)
    assert len(optimizer.param_groups) == 2
    before = query.detach().clone(), key.detach().clone()
    model.requires_grad_(False)
    for weight in (query, key):
        weight.requires_grad_(True)
    ids = torch.arange(6)[None]
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    assert torch.equal(query, before[0] / 2)
    assert not torch.equal(key, before[1])
    assert "memory" in optimizer.state[query]
    assert "exp_avg" in optimizer.state[key]


def test_what_needs_all_gradients_at_once_is_refused(tmp_path, monkeypatch):
    run = run_of(tmp_path, max_grad_norm=0.5)
    with pytest.raises(ConfigError, match=r"max_grad_norm: 0\.5: gradients cannot be scaled to .* with some_key"):
        each_weight.refuse_what_needs_all_gradients(run, "some_key")
    each_weight.refuse_what_needs_all_gradients(run_of(tmp_path, max_grad_norm=0), "use_cpu")
    each_weight.refuse_what_needs_all_gradients(run_of(tmp_path), "use_cpu")
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ConfigError, match="several processes average their gradients after the backward pass"):
        each_weight.refuse_what_needs_all_gradients(run_of(tmp_path), "use_cpu")


# Which weights


def test_matrices_are_those_between_embeddings_and_output(tmp_path):
    model = run_of(tmp_path).model(trainable=True)
    found = matrices.matrices(model)
    assert set(found) == {name for name, _ in model.named_parameters() if name.endswith("_proj.weight")}
    rest = matrices.the_rest(model, found)
    assert len(found) + len(rest) == len(list(model.parameters()))
    assert any(weight is model.lm_head.weight for weight in rest)
    model.model.layers[0].requires_grad_(False)
    assert all(name.startswith("model.layers.1.") for name in matrices.matrices(model))


def test_matrices_of_experts_and_of_conv1d_are_found(tmp_path):
    mixtral = run_of(tmp_path, model_name_or_path="ftk://random/mixtral").model(trainable=True)
    found = matrices.matrices(mixtral)
    assert found["model.layers.0.mlp.experts.gate_up_proj"].ndim == 3
    gpt2 = run_of(tmp_path, model_name_or_path="ftk://random/gpt2").model(trainable=True)
    found = matrices.matrices(gpt2)
    assert "transformer.h.0.attn.c_attn.weight" in found
    assert not [name for name in found if "wte" in name or "wpe" in name or "lm_head" in name]


def test_matrices_are_named_by_parts_of_their_names(tmp_path):
    model = run_of(tmp_path).model(trainable=True)
    assert len(matrices.named_matrices(model, ["all"], "here")) == 14
    assert len(matrices.named_matrices(model, ["mlp"], "here")) == 6
    assert list(matrices.named_matrices(model, ["layers.1.self_attn.q_proj"], "here")) == [
        "model.layers.1.self_attn.q_proj.weight"
    ]
    with pytest.raises(ConfigError, match=r"^here: no matrix that learns has q_prj .* Did you mean q_proj\?"):
        matrices.named_matrices(model, ["mlp", "q_prj"], "here")
    model.requires_grad_(False)
    with pytest.raises(ConfigError, match="no matrix of the model learns"):
        matrices.named_matrices(model, ["all"], "here")
