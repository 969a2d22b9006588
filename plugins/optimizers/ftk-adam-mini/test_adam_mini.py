"""Adam-mini against the paper's algorithm written naively, block by block, and where it is installed the authors' code
(adam_mini 1.1.1); and real runs.
"""

import math
from importlib.util import find_spec

import pytest
import torch
from ftk.errors import ConfigError
from ftk.run import Run
from ftk.testing import check_plugin
from ftk.testing.runs import plan_in
from ftk_adam_mini.optimizer import AdamMini

GROUP = {"lr": 0.01, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.1}


def test_the_plugin_keeps_the_contract():
    assert check_plugin("adam-mini")


def naive(weight, gradients, blocks):
    """Zhang et al. 2024: for each block g, v <- b2 v + (1 - b2) mean(g * g), and otherwise AdamW.

    blocks: lists of flat indices.
    """
    lr, (b1, b2), eps, decay = GROUP.values()
    weight = weight.double().flatten().clone()
    for block in blocks:
        m, v = torch.zeros(len(block), dtype=torch.float64), 0.0
        for t, gradient in enumerate(gradients, start=1):
            g = gradient.double().flatten()[block]
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * sum(float(one) ** 2 for one in g) / len(block)
            weight[block] *= 1 - lr * decay
            weight[block] -= lr * (m / (1 - b1**t)) / (math.sqrt(v / (1 - b2**t)) + eps)
    return weight.float()


def index_blocks(shape, rows, transposed):
    places = torch.arange(math.prod(shape)).view(shape)
    places = (places.mT if transposed else places).reshape(-1, shape[-2 if transposed else -1])
    step = rows or len(places)
    return [places[start : start + step].flatten().tolist() for start in range(0, len(places), step)]


@pytest.mark.parametrize(
    ("shape", "rows", "transposed"),
    [((8, 6), 1, False), ((8, 6), 4, False), ((8, 6), 1, True), ((8, 6), 0, False), ((3, 4, 6), 1, False)],
    ids=["neurons", "heads", "Conv1D", "whole", "experts"],
)
def test_each_block_has_the_step_of_the_paper(shape, rows, transposed):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(shape, generator=generator)
    gradients = [torch.randn(shape, generator=generator) for _ in range(4)]
    wanted = naive(weight, gradients, index_blocks(shape, rows, transposed))
    state = {}
    for gradient in gradients:
        AdamMini(rows, transposed).update(weight, gradient, state, GROUP)
    torch.testing.assert_close(weight.flatten(), wanted)
    assert state["exp_avg_sq"].shape == (len(index_blocks(shape, rows, transposed)),)


def rules_of(tmp_path, model):
    """Last parts of a weight's name → (rule, its rows, values of its second moment)."""
    run = Run(plan_in(tmp_path, use_adam_mini=True, model_name_or_path=model, finetuning_type="full"))
    model = run.model(trainable=True)
    names = {id(weight): name for name, weight in model.named_parameters()}
    optimizer = run.optimizer(model)
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    found = {}
    for group in optimizer.param_groups:
        for weight in group["params"]:
            moments = optimizer.state[weight]["exp_avg_sq"].numel()
            found[names[id(weight)]] = (group["rule"]["name"], group["rule"].get("rows"), moments)
    return found


def test_the_blocks_are_heads_neurons_tokens_and_whole_norms(tmp_path):
    """4 heads and 2 of keys, 16 wide, hidden size 64: another product than the hidden size would give in 5 heads."""
    rules = rules_of(tmp_path, "ftk://random/llama?attention_bias=true")
    layer = "model.layers.0."
    assert rules[layer + "self_attn.q_proj.weight"] == ("AdamMini", 16, 4)
    assert rules[layer + "self_attn.k_proj.weight"] == ("AdamMini", 16, 2)
    assert rules[layer + "self_attn.v_proj.weight"] == ("AdamMini", 1, 32)
    assert rules[layer + "self_attn.o_proj.weight"] == ("AdamMini", 1, 64)
    assert rules[layer + "mlp.down_proj.weight"] == ("AdamMini", 1, 64)
    assert rules[layer + "input_layernorm.weight"] == ("AdamMini", 0, 1)
    assert rules[layer + "self_attn.q_proj.bias"] == ("AdamW", None, 64)
    assert rules["model.embed_tokens.weight"][1:] == rules["lm_head.weight"][1:]
    assert rules["lm_head.weight"][1] == 1


def test_heads_need_not_fill_the_hidden_size(tmp_path):
    rules = rules_of(tmp_path, "ftk://random/qwen3?head_dim=32")
    assert rules["model.layers.0.self_attn.q_proj.weight"] == ("AdamMini", 32, 4)


def test_weights_stored_the_other_way_round_have_their_outputs_as_blocks(tmp_path):
    rules = rules_of(tmp_path, "ftk://random/gpt2")
    assert rules["transformer.h.0.mlp.c_fc.weight"] == ("AdamMini", 1, 128)
    assert rules["transformer.h.0.attn.c_attn.weight"] == ("AdamMini", 1, 192)


@pytest.mark.skipif(find_spec("adam_mini") is None, reason="the authors' adam_mini is not installed")
def test_the_authors_code_makes_the_same_steps(tmp_path):
    from adam_mini import Adam_mini

    settings = {"finetuning_type": "full", "use_adam_mini": True, "learning_rate": 0.01, "weight_decay": 0.1}
    run = Run(plan_in(tmp_path, **settings))
    ours = run.model(trainable=True)
    theirs = Run(plan_in(tmp_path, **settings)).model(trainable=True)
    sizes = {"dim": 64, "n_heads": 4, "n_kv_heads": 2, "verbose": False}
    reference = Adam_mini(theirs.named_parameters(), lr=0.01, weight_decay=0.1, **sizes)
    optimizer = run.optimizer(ours)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            mine.grad = torch.randn(mine.shape, generator=generator)
            other.grad = mine.grad.clone()
        optimizer.step()
        reference.step()
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, msg=name)


def test_a_run_learns_and_resumes_exactly(resumes_exactly):
    log = resumes_exactly(use_adam_mini=True)
    assert log[-1]["loss"] < log[0]["loss"] - 0.3


@pytest.mark.parametrize(
    "more",
    [
        {"finetuning_type": "lora"},
        {"model_name_or_path": "ftk://random/qwen3_moe"},
        {"pure_bf16": True, "model_name_or_path": "ftk://random/llama?dtype=bfloat16"},
    ],
    ids=lambda more: str(next(iter(more.items()))),
)
def test_a_resume_is_exact_with(resumes_exactly, more):
    resumes_exactly(use_adam_mini=True, **more)


def test_a_killed_run_ends_as_if_nothing_had_happened(survives_a_kill):
    survives_a_kill(use_adam_mini=True)


def test_sharded_weights_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="optimizer:adam-mini and fsdp exclude each other"):
        plan_in(tmp_path, use_adam_mini=True, fsdp="full_shard")
