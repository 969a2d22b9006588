"""GaLore against singular values by numpy (the best projection of a rank leaves the sum of the squares of the others,
Eckart and Young 1936), torch.optim.AdamW on rotated weights, transformers' Adafactor, and, where they are installed,
the authors' galore_torch and bitsandbytes' table of 8-bit values; and real runs.

Shapes and tolerance (1e-4) of the projection are those that the authors' code showed, ``golden/property_checks.json``.
"""

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from ftk.errors import ConfigError, PluginError
from ftk.run import Run
from ftk.testing import check_plugin
from ftk.testing.runs import plan_in
from ftk_galore.adafactor import Adafactor
from ftk_galore.eight_bits import EightBits, dequantized, dynamic_map, quantized
from ftk_galore.optimizer import GaloreAdamW
from ftk_galore.projection import Projection
from ftk_training.adamw import Plain, adam
from ftk_training.arguments import make_arguments

GROUP = {"lr": 0.01, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.1}
SHAPES = [((32, 16), (32, 4)), ((16, 32), (4, 32)), ((20, 20), (20, 4))]
GALORE = {"use_galore": True, "galore_rank": 4, "galore_update_interval": 3}


def test_the_plugin_keeps_the_contract():
    assert check_plugin("galore")


def gradients(*shape, count=1):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for _ in range(count)]


# The projection


@pytest.mark.parametrize(("shape", "small"), SHAPES)
def test_the_projection_is_the_best_of_its_rank(shape, small):
    (gradient,) = gradients(*shape)
    projection, state = Projection(rank=4, interval=200), {}
    down = projection.down(gradient, state)
    assert down.shape == small
    error = np.linalg.norm((gradient - projection.up(down, state)).numpy()) ** 2
    singular = np.linalg.svd(gradient.numpy(), compute_uv=False)
    assert error == pytest.approx(float((singular[4:] ** 2).sum()), abs=1e-4)


@pytest.mark.parametrize(
    ("kind", "tall", "wide"),
    [
        ("std", (32, 4), (4, 32)),
        ("reverse_std", (4, 16), (16, 4)),
        ("left", (4, 16), (4, 32)),
        ("right", (32, 4), (16, 4)),
        ("full", (4, 4), (4, 4)),
    ],
)
def test_each_kind_projects_its_side_and_both_are_as_good(kind, tall, wide):
    for shape, small in (((32, 16), tall), ((16, 32), wide)):
        (gradient,) = gradients(*shape)
        projection, state = Projection(4, 200, kind), {}
        down = projection.down(gradient, state)
        assert down.shape == small
        u, values, vt = np.linalg.svd(gradient.numpy())
        best = torch.from_numpy(u[:, :4] * values[:4] @ vt[:4])
        torch.testing.assert_close(projection.up(down, state), best, atol=1e-4, rtol=1e-4)


def test_experts_are_projected_each_on_its_own():
    (gradient,) = gradients(3, 12, 8)
    state = {}
    together = Projection(2, 200).down(gradient, state)
    for expert in range(3):
        alone = Projection(2, 200).down(gradient[expert], {})
        torch.testing.assert_close(together[expert].abs(), alone.abs(), atol=1e-4, rtol=1e-4)  # the sign is free


def test_the_projection_changes_exactly_every_interval():
    projection, state, before, changed = Projection(2, 3), {}, None, []
    for step, gradient in enumerate(gradients(8, 6, count=8)):
        adam(projection.down(gradient, state), state, GROUP, Plain())
        if before is None or not torch.equal(before, state["right"]):
            changed.append(step)
        before = state["right"].clone()
    assert changed == [0, 3, 6]


# The steps


def test_with_full_rank_it_is_adamw_on_the_rotated_weight():
    """With all singular vectors in Q the weight W moves as AdamW moves W Q by the gradient G Q."""
    start, *steps = gradients(10, 6, count=5)
    rule, ours, state = GaloreAdamW(Projection(6, 200), 1.0, Plain()), start.clone(), {}
    rotated = reference = None
    for gradient in steps:
        rule.update(ours, gradient, state, GROUP)
        if rotated is None:
            q = state["right"].mT
            rotated = torch.nn.Parameter(start @ q)
            reference = torch.optim.AdamW([rotated], lr=0.01, betas=(0.9, 0.99), weight_decay=0.1)
        rotated.grad = gradient @ q
        reference.step()
    torch.testing.assert_close(ours, rotated.data @ q.mT, atol=1e-5, rtol=1e-5)


def test_the_scale_multiplies_the_step_and_not_the_decay():
    start, gradient = gradients(8, 8, count=2)
    moved = []
    for scale in (1.0, 3.0):
        weight = start.clone()
        GaloreAdamW(Projection(2, 200), scale, Plain()).update(weight, gradient, {}, GROUP)
        moved.append(start * (1 - 0.01 * 0.1) - weight)
    torch.testing.assert_close(moved[1], 3 * moved[0], atol=1e-6, rtol=1e-4)


@pytest.mark.skipif(find_spec("galore_torch") is None, reason="the authors' galore_torch is not installed")
@pytest.mark.parametrize("kind", ["std", "reverse_std", "left", "right", "full"])
def test_the_authors_code_makes_the_same_steps(kind):
    from galore_torch import GaLoreAdamW

    start, *steps = gradients(10, 6, count=8)
    theirs = torch.nn.Parameter(start.clone())
    settings = {"rank": 2, "update_proj_gap": 3, "scale": 0.25, "proj_type": kind}
    reference = GaLoreAdamW([{"params": [theirs], **settings}], lr=0.01, betas=(0.9, 0.99), eps=1e-12)
    ours, state, rule = start.clone(), {}, GaloreAdamW(Projection(2, 3, kind), 0.25, Plain())
    for gradient in steps:
        rule.update(ours, gradient, state, {**GROUP, "weight_decay": 0.0, "eps": 1e-12})
        theirs.grad = gradient.clone()
        reference.step()
    torch.testing.assert_close(ours, theirs.data, atol=1e-5, rtol=1e-5)


def test_adafactor_for_unprojected_weights_is_that_of_transformers():
    from transformers.optimization import Adafactor as Reference

    for shape in ((10, 6), (7,)):
        start, *steps = gradients(*shape, count=5)
        ours, theirs, state = start.clone(), torch.nn.Parameter(start.clone()), {}
        reference = Reference([theirs], lr=0.01, weight_decay=0.1, scale_parameter=False, relative_step=False)
        for gradient in steps:
            theirs.grad = 100 * gradient
            Adafactor().update(ours, theirs.grad.clone(), state, GROUP)
            reference.step()
        torch.testing.assert_close(ours, theirs.data)


# 8 bits


@pytest.mark.parametrize("signed", [True, False])
def test_the_table_holds_256_values_whose_relative_error_is_the_same_in_every_decade_or_smaller_above(signed):
    """Dettmers et al. 2022, section 2.1: seven decades; the largest has steps of 0.9 / 64 (0.9 / 128 unsigned)."""
    table = dynamic_map(signed)
    assert table.shape == (256,)
    assert len(set(table.tolist())) == 256
    assert (table.min(), table.max()) == (pytest.approx(-1 + 0.9 / 128) if signed else 0, 1)
    assert 0 in table
    top = table[(table > 0.1) & (table < 1)]
    torch.testing.assert_close(top.diff(), torch.full((len(top) - 1,), 0.9 / (64 if signed else 128)))
    assert float(table[table > 0].min()) == pytest.approx(5.5e-7 if signed else 3.25e-7, rel=1e-3)


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
@pytest.mark.parametrize("signed", [True, False])
def test_the_table_is_that_of_bitsandbytes(signed):
    from bitsandbytes.functional import create_dynamic_map

    torch.testing.assert_close(dynamic_map(signed), create_dynamic_map(signed=signed), atol=1e-7, rtol=0)


def test_each_value_becomes_the_nearest_one_of_its_block():
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 2, 1000)
    codes, scales = quantized(values, signed=True)
    assert (codes.dtype, codes.shape, scales.shape) == (torch.uint8, (1000,), (4,))
    back = dequantized(codes, scales, True, values.shape)
    table = dynamic_map(signed=True)
    for start in range(0, 1000, 256):
        block = values[start : start + 256]
        nearest = (block[:, None] - table * block.abs().max()).abs().min(dim=1).values
        torch.testing.assert_close((back[start : start + 256] - block).abs(), nearest, atol=1e-6, rtol=1e-5)


def test_moments_in_8_bits_take_a_quarter_of_the_bytes_and_steps_stay_close():
    start, *steps = gradients(64, 128, count=6)
    moved, bytes_kept = [], []
    for moments in (Plain(), EightBits()):
        weight, state = start.clone(), {}
        for gradient in steps:
            GaloreAdamW(Projection(48, 200), 1.0, moments).update(weight, gradient, state, GROUP)
        moved.append(weight - start)
        held = [value for key, value in state.items() if key not in ("left", "step")]
        bytes_kept.append(sum(value.numel() * value.element_size() for value in held))
    assert bytes_kept[1] < 0.27 * bytes_kept[0]
    assert (moved[0] - moved[1]).norm() < 0.05 * moved[0].norm()


# Runs


def optimizer_of(tmp_path, **settings):
    run = Run(plan_in(tmp_path, finetuning_type="full", **{**GALORE, **settings}))
    model = run.model(trainable=True)
    return run.optimizer(model), model


def step_all(optimizer, model):
    for weight in model.parameters():
        weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel()))
    optimizer.step()


def test_the_state_of_projected_weights_has_the_small_shape(tmp_path):
    optimizer, model = optimizer_of(tmp_path)
    step_all(optimizer, model)
    layer = model.model.layers[0]
    up, down = (optimizer.state[one.weight] for one in (layer.mlp.up_proj, layer.mlp.down_proj))
    assert (up["exp_avg"].shape, up["exp_avg_sq"].shape, up["right"].shape) == ((128, 4), (128, 4), (4, 64))
    assert (down["exp_avg"].shape, down["left"].shape) == ((4, 128), (64, 4))
    assert optimizer.state[model.lm_head.weight]["exp_avg"].shape == model.lm_head.weight.shape


def test_in_8_bits_embeddings_and_small_weights_keep_their_moments(tmp_path):
    optimizer, model = optimizer_of(tmp_path, optim="adamw_8bit")
    step_all(optimizer, model)
    assert optimizer.state[model.lm_head.weight]["first"].dtype == torch.uint8
    assert optimizer.state[model.get_input_embeddings().weight]["exp_avg"].dtype == torch.float32
    assert optimizer.state[model.model.norm.weight]["exp_avg"].dtype == torch.float32


def test_only_named_targets_are_projected(tmp_path):
    optimizer, model = optimizer_of(tmp_path, galore_target="mlp,layers.1.self_attn.q_proj")
    step_all(optimizer, model)
    projected = {
        name for name, weight in model.named_parameters() if optimizer.state[weight].keys() & {"left", "right"}
    }
    assert projected == {
        *(f"model.layers.{n}.mlp.{part}_proj.weight" for n in (0, 1) for part in ("gate", "up", "down")),
        "model.layers.1.self_attn.q_proj.weight",
    }
    with pytest.raises(ConfigError, match=r"self_atn: no matrix that learns .* Did you mean self_attn\?"):
        optimizer_of(tmp_path, galore_target="self_atn")


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"optim": "adamw_8bit", "galore_rank": 64},
        {"optim": "adafactor"},
        {"galore_layerwise": True, "gradient_accumulation_steps": 1},
        {"galore_layerwise": True, "gradient_accumulation_steps": 1, "optim": "adamw_8bit"},
        {"galore_proj_type": "full", "model_name_or_path": "ftk://random/mixtral"},
        {"pure_bf16": True, "model_name_or_path": "ftk://random/llama?dtype=bfloat16"},
    ],
    ids=["plain", "8 bits", "adafactor", "layerwise", "layerwise 8 bits", "experts", "bf16"],
)
def test_a_run_learns_and_resumes_exactly(resumes_exactly, more):
    log = resumes_exactly(**{**GALORE, **more})
    assert min(line["grad_norm"] for line in log if "loss" in line) > 0
    assert log[-1]["loss"] < log[0]["loss"] - 0.3


def test_a_killed_layerwise_run_ends_as_if_nothing_had_happened(survives_a_kill):
    survives_a_kill(**GALORE, galore_layerwise=True, gradient_accumulation_steps=1)


def test_layerwise_is_the_same_training_without_keeping_gradients(train, losses_of, tmp_path):
    """Bit for bit, when gradients are not scaled to a norm."""
    settings = {**GALORE, "gradient_accumulation_steps": 1, "max_grad_norm": 0}
    plain = train(**settings, output_dir=str(tmp_path / "plain"))
    layerwise = train(**settings, galore_layerwise=True)
    assert losses_of(layerwise) == losses_of(plain)
    assert (layerwise / "model.safetensors").read_bytes() == (plain / "model.safetensors").read_bytes()
    optimizer, model = optimizer_of(tmp_path, galore_layerwise=True)
    ids = torch.arange(8)[None]
    model(input_ids=ids, labels=ids).loss.backward()
    assert all(weight.grad is None for weight in model.parameters())
    assert float(optimizer.take_gradient_norm()) > 0


@pytest.mark.needs("ftk-apollo")
def test_a_second_optimizer_is_refused(tmp_path):
    with pytest.raises(PluginError, match="use_galore and use_apollo exclude each other: a run takes one optimizer"):
        plan_in(tmp_path, finetuning_type="full", **GALORE, use_apollo=True)


def test_what_does_not_go_together_is_refused_before_a_model_is_loaded(tmp_path):
    def refused(line, **settings):
        with pytest.raises(ConfigError, match=line):
            make_arguments(Run(plan_in(tmp_path, **{"finetuning_type": "full", **GALORE, **settings})))

    layerwise = {"galore_layerwise": True}
    refused("optimizer:galore and adapter:lora exclude each other", finetuning_type="lora")
    refused("optimizer:galore and deepspeed exclude each other", deepspeed="ds.json")
    refused("needs gradient_accumulation_steps=1", **layerwise, gradient_accumulation_steps=2)
    refused("galore_layerwise and fp16 exclude each other", **layerwise, fp16=True)
    refused("max_grad_norm: 1.0: gradients cannot be scaled", **layerwise, max_grad_norm=1.0)
    refused("optim: sgd: GaLore does not work with it. Take one of adamw_torch", optim="sgd")


def test_several_processes_cannot_update_within_the_backward_pass(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="several processes average their gradients after the backward pass"):
        optimizer_of(tmp_path, galore_layerwise=True)
