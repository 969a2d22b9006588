"""APOLLO against the paper's algorithm 1 (Zhu et al. 2024) written naively, value by value, with the projection given;
against the authors' apollo_torch where it is installed, with projections from the singular vectors; and real runs.
"""

import math
from importlib.util import find_spec

import pytest
import torch
from ftk.errors import ConfigError
from ftk.run import Run
from ftk.testing import check_plugin
from ftk.testing.runs import plan_in
from ftk_apollo.optimizer import Apollo, limited
from ftk_training.arguments import make_arguments

GROUP = {"lr": 0.01, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.1}
APOLLO = {"use_apollo": True, "apollo_rank": 4, "apollo_update_interval": 3}


def test_the_plugin_keeps_the_contract():
    assert check_plugin("apollo")


def tensors(*shape, count):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for _ in range(count)]


def rule_for(weight, name="a", **changes):
    settings = {"rank": 3, "interval": 2, "scale": 5.0, "projection": "random", "side": "std", "by_channel": True}
    return Apollo(**{**settings, "limit_last": False, "seed": 7, **changes}, names={weight: name})


def naive(weight, gradients, projections, *, by_channel, limit_last, scale=5.0):
    """R = P G for each step's P; Adam's direction of R; every channel of G scaled as much as its channel of R was.

    Then the limit on the growth of the step, then the correction of the first steps.
    """
    lr, (b1, b2), eps, decay = GROUP.values()
    rows, columns = weight.shape
    weight, m, v, last = weight.double().clone(), 0.0, 0.0, None
    for t, (gradient, projection) in enumerate(zip(gradients, projections, strict=True), start=1):
        g, r = gradient.double(), projection.double() @ gradient.double()
        m, v = b1 * m + (1 - b1) * r, b2 * v + (1 - b2) * r**2
        direction = m / (v.sqrt() + eps)
        step = torch.empty(rows, columns, dtype=torch.float64)
        for j in range(columns):
            factor = direction[:, j].norm() / r[:, j].norm() if by_channel else direction.norm() / r.norm()
            step[:, j] = g[:, j] * factor
        if limit_last:
            step = step * scale
        if last is not None and step.norm() > 1.01 * last:
            step = step * 1.01 * last / step.norm()
        last = step.norm()
        if not limit_last:
            step = step * scale
        weight = weight * (1 - lr * decay) - lr * math.sqrt(1 - b2**t) / (1 - b1**t) * step
    return weight.float()


@pytest.mark.parametrize("by_channel", [True, False])
@pytest.mark.parametrize("limit_last", [True, False])
def test_a_wide_matrix_moves_as_in_the_paper(by_channel, limit_last):
    weight, *gradients = tensors(6, 10, count=6)
    rule = rule_for(weight, by_channel=by_channel, limit_last=limit_last)
    projections = [rule._drawn(weight, weight, True, step // 2) for step in range(5)]
    wanted = naive(weight, gradients, projections, by_channel=by_channel, limit_last=limit_last)
    state = {}
    for gradient in gradients:
        rule.update(weight, gradient, state, GROUP)
    torch.testing.assert_close(weight, wanted, atol=1e-5, rtol=1e-5)


def test_a_tall_matrix_moves_as_its_transpose_would():
    weight, *gradients = tensors(10, 6, count=6)
    rule = rule_for(weight)
    projections = [rule._drawn(weight, weight, False, step // 2).mT for step in range(5)]
    wanted = naive(weight.mT, [one.mT for one in gradients], projections, by_channel=True, limit_last=False).mT
    state = {}
    for gradient in gradients:
        rule.update(weight, gradient, state, GROUP)
    torch.testing.assert_close(weight, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("side", "shape"), [("left", (3, 6)), ("right", (10, 3)), ("std", (10, 3))])
def test_each_kind_projects_its_side(side, shape):
    weight, gradient = tensors(10, 6, count=2)
    state = {}
    rule_for(weight, side=side).update(weight, gradient, state, GROUP)
    assert state["exp_avg"].shape == shape


def test_a_projection_is_drawn_again_from_the_seed_and_not_kept():
    weight, gradient = tensors(6, 10, count=2)
    first = rule_for(weight)._drawn(weight, gradient, True, 0)
    assert torch.equal(first, rule_for(weight)._drawn(weight, gradient, True, 0))
    assert not torch.equal(first, rule_for(weight, name="b")._drawn(weight, gradient, True, 0))
    assert not torch.equal(first, rule_for(weight, seed=8)._drawn(weight, gradient, True, 0))
    assert not torch.equal(first, rule_for(weight)._drawn(weight, gradient, True, 1))
    state, before = {}, torch.get_rng_state()
    rule_for(weight).update(weight, gradient, state, GROUP)
    assert state.keys() == {"step", "exp_avg", "exp_avg_sq", "norm"}
    assert torch.equal(before, torch.get_rng_state())


def test_a_projection_keeps_lengths_on_average():
    """Entries of variance 1 / rank (Zhu et al. 2024, theorem on random projections)."""
    weight, gradient = tensors(300, 500, count=2)
    small = rule_for(weight, rank=200)._drawn(weight, gradient, True, 0) @ gradient
    ratios = small.norm(dim=0) / gradient.norm(dim=0)
    assert float(ratios.mean()) == pytest.approx(1, abs=0.02)


def test_a_step_grows_by_one_hundredth_at_most():
    state = {}
    norms = [float(limited(torch.full((4,), size), state).norm()) for size in (1.0, 5.0, 1.0, 1.005)]
    assert norms == pytest.approx([2.0, 2.02, 2.0, 2.01])


@pytest.mark.skipif(find_spec("apollo_torch") is None, reason="the authors' apollo_torch is not installed")
@pytest.mark.parametrize("shape", [(6, 10), (10, 6)])
@pytest.mark.parametrize("scale_type", ["channel", "tensor"])
def test_the_authors_code_makes_the_same_steps(shape, scale_type):
    from apollo_torch import APOLLOAdamW

    start, *gradients = tensors(*shape, count=7)
    theirs = torch.nn.Parameter(start.clone())
    settings = {"rank": 2, "proj": "svd", "update_proj_gap": 3, "scale": 32.0, "proj_type": "std"}
    groups = [{"params": [theirs], "scale_type": scale_type, **settings}]
    reference = APOLLOAdamW(groups, lr=0.01, betas=(0.9, 0.99), eps=1e-12, weight_decay=0.0)
    changes = {"rank": 2, "projection": "svd", "interval": 3, "scale": math.sqrt(32)}
    rule, state = rule_for(start, **changes, by_channel=scale_type == "channel"), {}
    for gradient in gradients:
        rule.update(start, gradient, state, {**GROUP, "eps": 1e-12, "weight_decay": 0.0})
        theirs.grad = gradient.clone()
        reference.step()
    torch.testing.assert_close(start, theirs.data, atol=1e-5, rtol=1e-5)


# Runs


def test_experts_and_linear_layers_are_scaled_and_hold_small_moments(tmp_path):
    run = Run(plan_in(tmp_path, **APOLLO, model_name_or_path="ftk://random/mixtral", finetuning_type="full"))
    model = run.model(trainable=True)
    optimizer = run.optimizer(model)
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    experts = model.model.layers[0].mlp.experts.gate_up_proj
    assert optimizer.state[experts]["exp_avg"].shape == (4, 256, 4)
    assert optimizer.state[model.lm_head.weight]["exp_avg"].shape == model.lm_head.weight.shape


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"apollo_proj": "svd", "apollo_scale_type": "tensor", "apollo_scale_front": True},
        {"apollo_layerwise": True, "gradient_accumulation_steps": 1},
        {"model_name_or_path": "ftk://random/mixtral"},
        {"pure_bf16": True, "model_name_or_path": "ftk://random/llama?dtype=bfloat16"},
    ],
    ids=["random", "svd", "layerwise", "experts", "bf16"],
)
def test_a_run_learns_and_resumes_exactly(resumes_exactly, more):
    log = resumes_exactly(**{**APOLLO, **more})
    assert log[-1]["loss"] < log[0]["loss"] - 0.3


def test_a_killed_layerwise_run_ends_as_if_nothing_had_happened(survives_a_kill):
    survives_a_kill(**APOLLO, apollo_layerwise=True, gradient_accumulation_steps=1)


def test_layerwise_is_the_same_training(train, losses_of, tmp_path):
    settings = {**APOLLO, "gradient_accumulation_steps": 1, "max_grad_norm": 0}
    plain = train(**settings, output_dir=str(tmp_path / "plain"))
    layerwise = train(**settings, apollo_layerwise=True)
    assert losses_of(layerwise) == losses_of(plain)
    assert (layerwise / "model.safetensors").read_bytes() == (plain / "model.safetensors").read_bytes()


def test_what_does_not_go_together_is_refused_before_a_model_is_loaded(tmp_path):
    def refused(line, **settings):
        with pytest.raises(ConfigError, match=line):
            make_arguments(Run(plan_in(tmp_path, **{"finetuning_type": "full", **APOLLO, **settings})))

    refused("optimizer:apollo and adapter:lora exclude each other", finetuning_type="lora")
    refused("optimizer:apollo and deepspeed exclude each other", deepspeed="ds.json")
    refused("needs gradient_accumulation_steps=1", apollo_layerwise=True, gradient_accumulation_steps=2)
    refused("max_grad_norm: 1.0: gradients cannot be scaled", apollo_layerwise=True, max_grad_norm=1.0)
