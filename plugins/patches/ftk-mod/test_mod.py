"""Mixture-of-Depths against the paper's equation 1, written token by token (Raposo et al. 2024, section 3)."""

import json
import math

import ftk
import pytest
import torch
from ftk import ConfigError, ModelError
from ftk.opening import open_run
from ftk.run import Run
from ftk.testing import check_plugin, run_in
from ftk.testing.runs import plan_in
from ftk_mod.converting import add_routers
from ftk_mod.routing import Routed, Router, best
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, DynamicCache

FULL = {"finetuning_type": "full", "template": "chatml", "mixture_of_depths": "convert"}


def test_the_plugin_keeps_the_contract():
    assert check_plugin("mod")


# Which tokens


@pytest.mark.parametrize("capacity", [0.125, 0.42, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("length", [1, 7, 8, 150])
def test_exactly_floor_of_capacity_times_length_tokens_are_taken_and_they_are_the_best(capacity, length):
    scores = torch.randn(3, length, generator=torch.Generator().manual_seed(length))
    valid = torch.arange(length) < torch.tensor([length, length // 2, 1])[:, None]
    taken = best(scores, valid, capacity)
    for row, count in enumerate((length, length // 2, 1)):
        number = math.floor(round(capacity * 1000) * count / 1000)
        ranked = sorted(range(count), key=lambda token: -scores[row, token])[:number]
        assert sorted(taken[row].nonzero()[:, 0].tolist()) == sorted(ranked)


def test_equal_scores_do_not_add_tokens():
    """A comparison with the k-th best score would take all of them, or none."""
    assert best(torch.zeros(2, 8), torch.ones(2, 8, dtype=torch.bool), 0.25).sum(1).tolist() == [2, 2]


# What happens to them


class Mixing(torch.nn.Module):
    """A block that sees its input in a causal average, to tell what it saw; notes how many tokens came."""

    def __init__(self, width):
        super().__init__()
        self.linear = torch.nn.Linear(width, width, dtype=torch.float64)
        self.mod_router = Router(width).double()
        self.widths = []

    def forward(self, hidden, attention_mask=None):
        self.widths.append(hidden.shape[1])
        average = hidden.cumsum(1) / torch.arange(1, hidden.shape[1] + 1)[:, None]
        return hidden + torch.tanh(self.linear(average))


def equation_1(block, hidden_TH, chosen):
    """x_i + r_i f_i(X~) for the chosen tokens, where f sees the chosen tokens alone; x_i for all others."""
    scores = (hidden_TH @ block.mod_router.score.weight.T)[:, 0]
    result = hidden_TH.clone()
    for place, token in enumerate(chosen):
        seen = hidden_TH[chosen[: place + 1]].mean(0)
        result[token] = hidden_TH[token] + scores[token] * torch.tanh(block.linear(seen))
    return result


@pytest.mark.parametrize("training", [True, False])
def test_chosen_tokens_follow_equation_1_and_others_pass_unchanged(training):
    torch.manual_seed(1)
    block = Mixing(6).train(training)
    hidden = torch.randn(3, 10, 6, dtype=torch.float64)
    block.mod_router.predict[2].bias.data -= block.mod_router(hidden)[1].median()
    mask = torch.arange(10) < torch.tensor([10, 7, 2])[:, None]
    found = Routed(Mixing.forward, 0.3, 1.0)(block, hidden, attention_mask=mask)
    scores, logits = block.mod_router(hidden)
    chosen = best(scores, mask, 0.3) if training else (logits > 0) & mask
    for row in range(3):
        tokens = chosen[row].nonzero()[:, 0].tolist()
        torch.testing.assert_close(found[row], equation_1(block, hidden[row], tokens))
        passed = [token for token in range(10) if token not in tokens]
        assert torch.equal(found[row, passed], hidden[row, passed]), "not a bit has changed"
    assert block.widths == [int(chosen.sum(1).max())], "the block computes the chosen tokens and no more"


def test_gradients_reach_the_router_through_the_score_and_the_predictor_from_its_own_loss_alone():
    torch.manual_seed(1)
    block = Mixing(6).train()
    hidden = torch.randn(2, 10, 6, dtype=torch.float64, requires_grad=True)
    Routed(Mixing.forward, 0.3, 0.5)(block, hidden).square().sum().backward()
    found = [one.grad.clone() for one in (block.mod_router.score.weight, hidden)]
    of_predictor = [one.grad.clone() for one in block.mod_router.predict.parameters()]
    chosen = best(block.mod_router(hidden)[0], torch.ones(2, 10, dtype=torch.bool), 0.3)
    block.zero_grad()
    again = hidden.detach().requires_grad_()
    wanted = torch.stack([equation_1(block, again[row], chosen[row].nonzero()[:, 0].tolist()) for row in range(2)])
    wanted.square().sum().backward()
    for one, other in zip(found, (block.mod_router.score.weight.grad, again.grad), strict=True):
        torch.testing.assert_close(one, other)
    block.zero_grad()
    probability = block.mod_router.predict(hidden.detach())[..., 0].sigmoid()
    entropy = -torch.where(chosen, probability.log(), (1 - probability).log()).mean()
    (0.5 * entropy).backward()
    for one, other in zip(of_predictor, block.mod_router.predict.parameters(), strict=True):
        torch.testing.assert_close(one, other.grad, rtol=1e-5, atol=1e-7)


# Models


def random_model(tmp_path, family):
    path = Run(plan_in(tmp_path, model_name_or_path=f"ftk://random/{family}")).model_path
    return (AutoModelForImageTextToText if family == "llava" else AutoModelForCausalLM).from_pretrained(path)


FAMILIES = ["llama", "gemma2", "gpt2", "falcon", "mixtral", "gpt_oss", "mamba", "qwen3_next", "llava"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_of_any_family_that_takes_all_tokens_with_score_1_is_the_dense_one(tmp_path, family):
    model = random_model(tmp_path, family).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    ids = torch.randint(5, 300, (2, 16), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(16) < torch.tensor([16, 9])[:, None]).long()
    dense = model(ids, attention_mask=mask).logits
    for name in add_routers(model, {"capacity": 1.0, "every": 1}):
        model.get_submodule(name).forward = lambda hidden: (torch.ones(hidden.shape[:2]),) * 2
    for mode in (True, False):
        found = model.train(mode)(ids, attention_mask=mask).logits
        torch.testing.assert_close(found[mask == 1], dense[mask == 1], rtol=1e-4, atol=1e-5)


def test_documents_of_a_packed_row_stay_apart(tmp_path):
    model = random_model(tmp_path, "llama").eval()
    add_routers(model, {"capacity": 0.5, "every": 1})
    ids = torch.arange(5, 21)[None]
    both = model(ids, position_ids=torch.cat([torch.arange(6), torch.arange(10)])[None], use_cache=False).logits
    torch.testing.assert_close(both[:, 6:], model(ids[:, 6:], use_cache=False).logits)


def test_answers_do_not_depend_on_later_tokens_nor_on_padding(tmp_path):
    model = random_model(tmp_path, "llama").eval()
    add_routers(model, {"capacity": 0.5, "every": 1})
    ids = torch.arange(5, 21)[None]
    whole = model(ids).logits
    for length in range(1, 16):
        torch.testing.assert_close(model(ids[:, :length]).logits, whole[:, :length])
    padded = torch.cat([torch.zeros(1, 4, dtype=torch.int64), ids], dim=1)
    mask = (torch.arange(20) >= 4).long()[None]
    positions = (torch.arange(20) - 4).clamp(min=0)[None]
    torch.testing.assert_close(model(padded, attention_mask=mask, position_ids=positions).logits[:, 4:], whole)
    with pytest.raises(ModelError, match="answers are made without a cache"):
        model.generate(ids, max_new_tokens=3, use_cache=True)
    greedy = model.generate(ids, max_new_tokens=3, do_sample=False)
    for place in (16, 17, 18):
        assert greedy[0, place] == model(greedy[:, :place]).logits[0, -1].argmax()


def test_a_cache_is_refused_even_an_empty_one():
    cache = DynamicCache()
    with pytest.raises(ModelError, match="without a cache"):
        Routed(Mixing.forward, 0.5, 1.0)(Mixing(4), torch.zeros(1, 2, 4, dtype=torch.float64), past_key_values=cache)


# Runs


def losses(folder):
    return [json.loads(line)["loss"] for line in (folder / "trainer_log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("more", [{}, {"packing": True, "gradient_checkpointing": True}], ids=["plain", "packed"])
def test_convert_train_save_load_resume(tmp_path, more):
    settings = {**FULL, "max_steps": 3, "mod_capacity": 0.5, **more}
    settings["model_name_or_path"] = "ftk://random/llama?num_hidden_layers=4"
    finished = run_in(tmp_path, **settings, save_strategy="steps", save_steps=2)
    stored = json.loads((finished.folder / "config.json").read_text())
    assert stored["mixture_of_depths"] == {"capacity": 0.5, "every": 2}
    ids = torch.arange(5, 21)[None]
    model = open_run("chat", str(finished.folder)).model(trainable=False).eval()
    logits = model(ids).logits
    assert [number for number, block in enumerate(model.model.layers) if hasattr(block, "mod_router")] == [1, 3]
    loading = {**settings, "model_name_or_path": str(finished.folder), "mixture_of_depths": "load"}
    loaded = Run(plan_in(tmp_path, **loading)).model(trainable=True).eval()
    assert torch.equal(loaded(ids).logits, logits)
    state = {name: one for name, one in loaded.state_dict().items() if "mod_router" in name}
    first = Run(plan_in(tmp_path, **settings)).model(trainable=True).state_dict()
    assert all(not torch.equal(one, first[name]) for name, one in state.items()), "routers and predictors have learnt"
    again = run_in(
        tmp_path, **settings, output_dir=str(tmp_path / "again"),
        resume_from_checkpoint=str(finished.folder / "checkpoint-2"),
    )  # fmt: skip
    assert losses(again.folder)[-1] == losses(finished.folder)[-1]
    with pytest.raises(ConfigError, match="mixture_of_depths: convert: the model has routers already"):
        run_in(tmp_path, **{**settings, "model_name_or_path": str(finished.folder), "output_dir": str(tmp_path / "no")})


def test_the_result_of_a_run_answers(tmp_path):
    finished = run_in(tmp_path, **FULL, max_steps=1)
    run = open_run("chat", str(finished.folder), ["--template", "chatml", "--max_new_tokens", "3"])
    prompt = ftk.Prompt((ftk.Message("user", "hello"),))
    (reply,) = run.engine().generate([prompt], ftk.Sampling(max_new_tokens=3, do_sample=False))
    assert 1 <= reply.num_tokens <= 3


def test_the_base_model_of_a_run_stays_dense(tmp_path):
    words = [
        "--model_name_or_path",
        "ftk://random/llama",
        "--mixture_of_depths",
        "convert",
        "--finetuning_type",
        "full",
    ]
    model = open_run("chat", None, words).model(trainable=False)
    assert not any(hasattr(module, "mod_router") for module in model.modules())


@pytest.mark.parametrize(
    "more",
    [
        {"finetuning_type": "lora"}, {"fp16": True}, {"flash_attn": "fa2"},
        pytest.param({"shift_attn": True}, marks=pytest.mark.needs("ftk-longlora")),
    ],
    ids=str,
)  # fmt: skip
def test_what_does_not_go_together_is_refused_by_the_plan(tmp_path, more):
    with pytest.raises(ConfigError, match="exclude each other"):
        plan_in(tmp_path, **{**FULL, **more})


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"mixture_of_depths": "load"}, "mixture_of_depths: load: the model has no routers. Set it to convert"),
        ({"model_name_or_path": "ftk://random/bloom"}, "blocks of bloom cannot work on some of the tokens"),
    ],
    ids=["nothing to load", "bloom"],
)
def test_what_cannot_be_done_is_said_in_one_line(tmp_path, more, said):
    with pytest.raises((ConfigError, ModelError), match=said) as caught:
        Run(plan_in(tmp_path, **{**FULL, **more})).model(trainable=True)
    assert "\n" not in str(caught.value)


def test_routers_that_are_not_those_of_the_config_are_refused(tmp_path):
    finished = run_in(tmp_path, **FULL, max_steps=1)
    config = json.loads((finished.folder / "config.json").read_text())
    config["mixture_of_depths"]["every"] = 1
    (finished.folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="its routers are not those"):
        open_run("chat", str(finished.folder)).model(trainable=False)
