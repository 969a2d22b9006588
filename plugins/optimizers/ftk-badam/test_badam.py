"""BAdam against the schedule that the authors' code showed when it ran (``golden/property_checks.json``: badam 1.4,
four layers, two steps each), torch.optim.AdamW on the layer that learns, and the authors' code itself where it is
installed; and real runs.
"""

from importlib.util import find_spec

import pytest
import torch
from ftk.errors import ConfigError
from ftk.run import Run
from ftk.testing import check_plugin
from ftk.testing.runs import plan_in
from ftk_badam.optimizer import layers_of
from ftk_badam.schedule import Schedule, entries
from ftk_training.arguments import make_arguments

PUBLISHED = {"ascending": [0, 1, 1, 2, 2, 3, 3, 0, 0, 1], "descending": [3, 2, 2, 1, 1, 0, 0, 3, 3, 2]}
BADAM = {"use_badam": True, "badam_switch_interval": 2, "finetuning_type": "full"}
FOUR = "ftk://random/llama?num_hidden_layers=4&attention_bias=true"


def test_the_plugin_keeps_the_contract():
    assert check_plugin("badam")


# The schedule


@pytest.mark.parametrize("mode", PUBLISHED)
def test_the_schedule_is_the_published_one(mode):
    schedule = Schedule(4, 2, mode, None, seed=0)
    assert [schedule.block(steps) for steps in range(10)] == PUBLISHED[mode]


def test_a_switch_after_each_step_and_none():
    assert [Schedule(3, 1, "ascending", None, 0).block(steps) for steps in range(5)] == [0, 1, 2, 0, 1]
    assert {Schedule(3, -1, "ascending", 2, 0).block(steps) for steps in range(200)} == {2}
    assert {Schedule(3, 2, "fixed", None, 0).block(steps) for steps in range(200)} == {0}


def test_a_first_layer_can_be_named():
    assert [Schedule(4, 1, "ascending", 2, 0).block(steps) for steps in range(4)] == [2, 3, 0, 1]
    assert [Schedule(4, 1, "descending", 1, 0).block(steps) for steps in range(4)] == [1, 0, 3, 2]
    assert Schedule(4, 1, "random", 2, 0).block(0) == 2


def test_random_goes_through_all_layers_in_new_orders_that_the_seed_decides():
    schedule = Schedule(5, 1, "random", None, seed=3)
    rounds = [[schedule.block(5 * number + place) for place in range(5)] for number in range(6)]
    assert all(sorted(one) == [0, 1, 2, 3, 4] for one in rounds)
    assert len({tuple(one) for one in rounds}) > 3
    assert rounds == [[Schedule(5, 1, "random", None, 3).block(5 * n + place) for place in range(5)] for n in range(6)]
    assert rounds != [[Schedule(5, 1, "random", None, 4).block(5 * n + place) for place in range(5)] for n in range(6)]


@pytest.mark.parametrize("mode", ["adjacent", "scatter"])
def test_parts_of_a_weight_cover_it_before_any_value_comes_again(mode):
    parts = [entries(1000, 50, number * 50, mode, 0, torch.device("cpu")) for number in range(20)]
    assert sorted(torch.cat(parts).tolist()) == list(range(1000))
    assert (parts[0].diff().abs().max() == 1) == (mode == "adjacent")
    assert torch.equal(parts[0], entries(1000, 50, 1000, mode, 0, torch.device("cpu")))


# The optimizer


def made(tmp_path, **settings):
    run = Run(plan_in(tmp_path, **{"model_name_or_path": FOUR, **BADAM, **settings}))
    model = run.model(trainable=True)
    return run.optimizer(model), model


def step(model, optimizer, seed):
    """One step on random gradients of what learns; gives the names of the weights that changed."""
    generator = torch.Generator().manual_seed(seed)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    for weight in model.parameters():
        gradient = torch.randn(weight.shape, generator=generator)
        weight.grad = gradient.to(weight.dtype) if weight.requires_grad else None
    optimizer.step()
    return {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}


def test_a_step_touches_the_active_layer_and_nothing_else(tmp_path):
    optimizer, model = made(tmp_path)
    for number, active in enumerate(PUBLISHED["ascending"]):
        inside = {name for name, _ in model.named_parameters() if name.startswith(f"model.layers.{active}.")}
        learning = {name for name, weight in model.named_parameters() if weight.requires_grad}
        assert learning == inside
        assert step(model, optimizer, number) == inside
        kept = {id(weight) for weight in optimizer.state}
        assert kept <= {id(weight) for name, weight in model.named_parameters() if name in inside}


def test_the_active_layer_moves_as_with_adamw_begun_anew(tmp_path):
    optimizer, model = made(tmp_path, badam_switch_interval=3, weight_decay=0.1, learning_rate=0.01)
    twin = Run(plan_in(tmp_path, model_name_or_path=FOUR, finetuning_type="full")).model(trainable=True)
    steps = 0
    for layer, times in ((0, 2), (1, 3)):
        weights = dict(twin.model.layers[layer].named_parameters())
        decayed = [weight for name, weight in weights.items() if "norm" not in name and "bias" not in name]
        others = [weight for name, weight in weights.items() if "norm" in name or "bias" in name]
        groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
        reference = torch.optim.AdamW(groups, lr=0.01, foreach=False)
        for _ in range(times):
            step(model, optimizer, steps)
            twin.requires_grad_(False)
            twin.model.layers[layer].requires_grad_(True)
            step(twin, reference, steps)
            steps += 1
    for (name, ours), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, msg=name)


def test_weights_of_16_bits_learn_through_a_copy_of_32(tmp_path):
    """Steps far below the resolution of bfloat16 add up."""
    model = "ftk://random/llama?dtype=bfloat16&num_hidden_layers=1"
    settings = {"model_name_or_path": model, "pure_bf16": True, "learning_rate": 1e-5, "badam_switch_interval": -1}
    optimizer, model = made(tmp_path, **settings)
    weight = model.model.layers[0].mlp.up_proj.weight
    start = weight.detach().float()
    for _ in range(50):
        for one in model.parameters():
            one.grad = torch.ones_like(one) if one.requires_grad else None
        optimizer.step()
    moved = optimizer.state[weight]["weight"] - start
    torch.testing.assert_close(moved, torch.full_like(moved, -50e-5), rtol=1e-2, atol=1e-6)
    torch.testing.assert_close(weight.float(), optimizer.state[weight]["weight"], rtol=4e-3, atol=1e-4)


@pytest.mark.parametrize("mode", ["adjacent", "scatter"])
def test_a_ratio_of_each_weight_learns_and_only_that(tmp_path, mode, monkeypatch):
    monkeypatch.setattr("ftk_badam.optimizer.INTERVAL", 2)
    optimizer, model = made(tmp_path, badam_mode="ratio", badam_update_ratio=0.25, badam_mask_mode=mode)
    weight = model.model.layers[0].mlp.up_proj.weight
    touched = []
    for number in range(8):
        before = weight.detach().clone()
        changed = step(model, optimizer, number)
        touched.append(set((before != weight).flatten().nonzero().flatten().tolist()))
        assert len(touched[-1]) == weight.numel() // 4 == len(optimizer.state[weight]["exp_avg"])
        assert not {"model.embed_tokens.weight", "lm_head.weight"} & changed
    assert touched[0] == touched[1] != touched[2] == touched[3]
    assert len(set.union(*touched)) == weight.numel()


@pytest.mark.skipif(find_spec("badam") is None, reason="the authors' badam is not installed")
@pytest.mark.parametrize("mode", ["ascending", "descending"])
def test_the_authors_code_makes_the_same_steps(tmp_path, mode):
    from badam import BlockOptimizer

    ours, model = made(tmp_path, badam_switch_mode=mode, learning_rate=0.01)
    twin = Run(plan_in(tmp_path, model_name_or_path=FOUR, finetuning_type="full")).model(trainable=True)
    inner = torch.optim.AdamW(twin.parameters(), lr=0.01, weight_decay=0.0)
    theirs = BlockOptimizer(inner, list(twin.named_parameters()), switch_block_every=2, switch_mode=mode, verbose=0)
    for number in range(9):
        assert step(model, ours, number) == step(twin, theirs, number)
    for (name, mine), other in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, other, msg=name)


@pytest.mark.parametrize(("family", "count"), [("gpt2", 2), ("mixtral", 2), ("gpt_neox", 2)])
def test_layers_are_found_in_any_family(tmp_path, family, count):
    run = Run(plan_in(tmp_path, **BADAM, model_name_or_path=f"ftk://random/{family}"))
    assert len(layers_of(run.model(trainable=True))) == count


# Runs


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"badam_switch_mode": "random", "badam_switch_interval": 1},
        {"badam_mode": "ratio", "badam_update_ratio": 0.5, "badam_mask_mode": "scatter"},
        {"pure_bf16": True, "model_name_or_path": "ftk://random/llama?dtype=bfloat16"},
        {"activation_checkpointing": True, "badam_switch_mode": "descending"},
        {"badam_mode": "ratio", "activation_checkpointing": True, "badam_update_ratio": 0.5},
    ],
    ids=["ascending", "random", "ratio", "bf16", "recomputed", "ratio recomputed"],
)
def test_a_run_learns_and_resumes_exactly(resumes_exactly, more):
    log = resumes_exactly(**{**BADAM, "learning_rate": 5e-3, **more})
    assert log[-1]["loss"] < log[0]["loss"] - 0.1
    assert min(line["grad_norm"] for line in log if "grad_norm" in line) > 0


def test_the_part_that_learns_changes_at_the_same_step_after_a_resume(resumes_exactly, monkeypatch):
    monkeypatch.setattr("ftk_badam.optimizer.INTERVAL", 3)
    resumes_exactly(**BADAM, badam_mode="ratio", badam_mask_mode="scatter", badam_update_ratio=0.5)


def test_a_killed_run_ends_as_if_nothing_had_happened(survives_a_kill):
    survives_a_kill(**BADAM, badam_switch_mode="random")


def test_each_switch_is_told_when_asked(tmp_path, caplog):
    caplog.set_level("INFO", logger="ftk")
    optimizer, model = made(tmp_path, badam_verbose=2)
    step(model, optimizer, 0)
    lines = [record.getMessage() for record in caplog.records if record.name == "ftk.badam"]
    assert [line.partition(",")[0] for line in lines] == ["model.layers.0 learns now", "model.layers.1 learns now"]
    assert lines[0].endswith(" values")


def test_what_does_not_go_together_is_refused(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="optimizer:badam and adapter:lora exclude each other"):
        plan_in(tmp_path, use_badam=True)
    with pytest.raises(ConfigError, match="badam_switch_interval: 0: give a number of steps, or -1"):
        plan_in(tmp_path, **{**BADAM, "badam_switch_interval": 0})
    with pytest.raises(ConfigError, match=r"badam_start_block: 9: the last of the 4 layers is 3"):
        made(tmp_path, badam_start_block=9)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="layers in turn need one process"):
        make_arguments(Run(plan_in(tmp_path, **BADAM)))
