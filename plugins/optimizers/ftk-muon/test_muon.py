"""Muon against torch.optim.Muon (with Moonlight's scale) and torch.optim.AdamW, on the same gradients; and real runs.

The limits for singular values are those that the coefficients of Jordan et al. (2024) were chosen for, by numpy's SVD.
"""

import numpy as np
import pytest
import torch
from ftk.errors import ConfigError, PluginError
from ftk.run import Run
from ftk.testing import check_plugin
from ftk.testing.runs import plan_in
from ftk_muon.optimizer import Muon, orthogonalised

GROUP = {"lr": 0.01, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.1}


def test_the_plugin_keeps_the_contract():
    assert check_plugin("muon")


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch.optim.Muon came with torch 2.9")
@pytest.mark.parametrize("shape", [(12, 30), (30, 12), (16, 16)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_matrix_moves_as_with_torch_optim_muon(shape, dtype, monkeypatch):
    """Bit for bit in its bfloat16; in float32, as on the CPU, within that."""
    monkeypatch.setattr("ftk_muon.optimizer.precision", lambda _: dtype)
    tolerance = 0 if dtype == torch.bfloat16 else 3e-4
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(shape, generator=generator)
    ours, theirs, state = start.clone(), torch.nn.Parameter(start.clone()), {}
    reference = torch.optim.Muon([theirs], lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(4):
        theirs.grad = torch.randn(shape, generator=generator)
        Muon().update(ours, theirs.grad.clone(), state, GROUP)
        reference.step()
        torch.testing.assert_close(ours, theirs.data, rtol=0, atol=tolerance)


def test_experts_move_as_if_each_were_alone():
    generator = torch.Generator().manual_seed(0)
    start, gradient = torch.randn(2, 3, 8, 20, generator=generator)
    together, state = start.clone(), {}
    Muon().update(together, gradient, state, GROUP)
    for expert in range(3):
        alone = start[expert].clone()
        Muon().update(alone, gradient[expert], {}, GROUP)
        torch.testing.assert_close(together[expert], alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(20, 50), (50, 20)])
def test_the_direction_has_the_singular_vectors_of_the_momentum_and_values_around_one(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    direction = orthogonalised(matrix, 5).float().numpy()
    values = np.linalg.svd(direction, compute_uv=False)
    assert values.min() > 0.6
    assert values.max() < 1.3
    u, _, vt = np.linalg.svd(matrix.numpy(), full_matrices=False)
    inside = u.T @ direction @ vt.T
    assert np.abs(inside - np.diag(np.diag(inside))).max() < 0.05


def groups_of(tmp_path, **settings):
    run = Run(plan_in(tmp_path, use_muon=True, weight_decay=0.1, **settings))
    model = run.model(trainable=True)
    names = {id(weight): name for name, weight in model.named_parameters()}
    optimizer = run.optimizer(model)
    return {
        (group["rule"]["name"], group["weight_decay"]): {names[id(weight)] for weight in group["params"]}
        for group in optimizer.param_groups
    }


def test_matrices_between_the_layers_get_muon_and_the_rest_adamw(tmp_path):
    model = "ftk://random/llama?attention_bias=true"
    groups = groups_of(tmp_path, model_name_or_path=model, finetuning_type="full")
    assert all("proj.weight" in name for name in groups["Muon", 0.1])
    assert len(groups["Muon", 0.1]) == 2 * 7
    assert groups["AdamW", 0.1] == {"model.embed_tokens.weight", "lm_head.weight"}
    assert all("norm" in name or "bias" in name for name in groups["AdamW", 0.0])
    assert len(groups["AdamW", 0.0]) == 2 * (2 + 4) + 1


def test_experts_in_one_parameter_and_low_rank_terms_get_muon(tmp_path):
    groups = groups_of(tmp_path, model_name_or_path="ftk://random/mixtral", finetuning_type="full")
    assert "model.layers.0.mlp.experts.gate_up_proj" in groups["Muon", 0.1]
    groups = groups_of(tmp_path, lora_target="q_proj")
    assert len(groups["Muon", 0.1]) == 2 * 2
    assert len(groups) == 1


def test_a_run_learns_and_resumes_exactly(resumes_exactly):
    log = resumes_exactly(use_muon=True, learning_rate=5e-3)
    assert log[-1]["loss"] < log[0]["loss"] - 0.3


@pytest.mark.parametrize(
    "more",
    [
        {"finetuning_type": "lora"},
        {"model_name_or_path": "ftk://random/mixtral"},
        {"pure_bf16": True, "model_name_or_path": "ftk://random/llama?dtype=bfloat16"},
        {"bf16": True, "max_grad_norm": 0.5},
    ],
    ids=lambda more: str(next(iter(more.items()))),
)
def test_a_resume_is_exact_with(resumes_exactly, more):
    resumes_exactly(use_muon=True, learning_rate=5e-3, **more)


def test_a_killed_run_ends_as_if_nothing_had_happened(survives_a_kill):
    survives_a_kill(use_muon=True)


@pytest.mark.needs("ftk-adam-mini")
def test_a_second_optimizer_is_refused(tmp_path):
    with pytest.raises(PluginError, match=r"use_muon and use_adam_mini exclude each other: a run takes one optimizer"):
        plan_in(tmp_path, use_muon=True, use_adam_mini=True)


def test_what_does_not_go_together_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="optimizer:muon and deepspeed exclude each other"):
        plan_in(tmp_path, use_muon=True, deepspeed="ds.json")
