"""LoRA+ against Hayou et al. 2024 (eta_B = ratio * eta_A) and the optimizer groups of peft's
``create_loraplus_optimizer``, which is the authors' code; the golden property checks have the rates."""

import pytest
import torch
from ftk.errors import ConfigError
from ftk.run import Run
from ftk.testing import check_plugin
from ftk.testing.runs import plan_in
from ftk_training.learning import of, split_rates
from peft.optimizers import create_loraplus_optimizer


def make(tmp_path, family="llama", **settings):
    defaults = {"finetuning_type": "lora", "learning_rate": 1e-4, "loraplus_lr_ratio": 16}
    return Run(plan_in(tmp_path, **{**defaults, "model_name_or_path": f"ftk://random/{family}", **settings}))


def rates_of(optimizer, model):
    names = {id(one): name for name, one in model.named_parameters()}
    return {names[id(one)]: group["lr"] for group in optimizer.param_groups for one in group["params"]}


def split(run, optimizer):
    split_rates(run, run.model(trainable=True), optimizer)
    return rates_of(optimizer, run.model(trainable=True))


def learning(model):
    return [one for one in model.parameters() if one.requires_grad]


def test_the_plugin_keeps_the_contract():
    assert check_plugin("loraplus")


@pytest.mark.parametrize(
    "settings",
    [{}, {"additional_target": "norm,lm_head"}, {"lora_target": "q_proj,embed_tokens"}, {"family": "mixtral"}],
    ids=lambda settings: ",".join(settings.values()),
)
def test_every_weight_has_the_rate_of_the_authors_code(tmp_path, settings):
    run = make(tmp_path, **settings)
    model = run.model(trainable=True)
    theirs = rates_of(create_loraplus_optimizer(model, torch.optim.AdamW, lr=1e-4, loraplus_lr_ratio=16), model)
    ours = split(run, torch.optim.AdamW(learning(model), lr=1e-4))
    assert ours == pytest.approx(theirs)
    assert {1e-4, 1.6e-3} <= {round(rate, 10) for rate in ours.values()}
    assert len(ours) == len(learning(model))


def test_lengths_of_dora_learn_as_fast_as_b(tmp_path):
    run = make(tmp_path, use_dora=True)
    model = run.model(trainable=True)
    ours = split(run, torch.optim.AdamW(learning(model), lr=1e-4))
    assert {round(rate, 10) for name, rate in ours.items() if "magnitude" in name} == {1.6e-3}


def test_groups_keep_their_settings_and_their_order_is_that_of_the_model(tmp_path):
    run = make(tmp_path)
    model = run.model(trainable=True)
    weights = learning(model)
    optimizer = torch.optim.AdamW([{"params": weights[:4], "weight_decay": 0.3}, {"params": weights[4:]}], lr=1e-4)
    split(run, optimizer)
    assert [(group["weight_decay"], round(group["lr"], 6)) for group in optimizer.param_groups] == [
        (0.3, 1e-4), (0.3, 1.6e-3), (0.01, 1e-4), (0.01, 1.6e-3),
    ]  # fmt: skip


def test_without_the_option_nothing_is_split(tmp_path):
    run = Run(plan_in(tmp_path, model_name_or_path="ftk://random/llama", finetuning_type="lora"))
    optimizer = torch.optim.AdamW(learning(run.model(trainable=True)), lr=1e-4)
    split_rates(run, run.model(trainable=True), optimizer)
    assert len(optimizer.param_groups) == 1
    assert not of(run).rates


def test_an_optimizer_that_hides_its_weights_is_refused(tmp_path):
    run = make(tmp_path)
    run.model(trainable=True)
    hidden = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-4)
    with pytest.raises(ConfigError, match="SGD keeps its weights to itself"):
        split(run, hidden)


def test_a_rate_for_embeddings_has_no_effect_without_the_ratio(tmp_path):
    notes = make(tmp_path, loraplus_lr_ratio=None, loraplus_lr_embedding=1e-3).plan.notes
    assert any("loraplus_lr_embedding: has no effect in this run" in note for note in notes)


@pytest.mark.parametrize("optim", ["adamw_torch_fused", "adafactor", "sgd"])
def test_a_run_with_any_optim_is_saved_loaded_and_resumed_exactly(prove, optim):
    done = prove(
        model_name_or_path="ftk://random/llama", finetuning_type="lora", loraplus_lr_ratio=4, optim=optim,
        learning_rate=1.0 if optim == "sgd" else 1e-2, lr_scheduler_type="constant",
    )  # fmt: skip
    b = [one for name, one in done.model.named_parameters() if "lora_B" in name]
    assert all(one.any() for one in b)


@pytest.mark.parametrize("family", ["mixtral", "llava"])
def test_a_run_of_another_kind_of_model_is_saved_loaded_and_resumed_exactly(prove, family):
    prove(model_name_or_path=f"ftk://random/{family}", finetuning_type="lora", loraplus_lr_ratio=4)


@pytest.mark.parametrize("method", ["full", "oft"])
def test_it_is_refused_without_lora(tmp_path, method):
    with pytest.raises(ConfigError, match="loraplus_lr_ratio: needs adapter:lora"):
        plan_in(tmp_path, finetuning_type=method, **{"loraplus_lr_ratio": 16})
