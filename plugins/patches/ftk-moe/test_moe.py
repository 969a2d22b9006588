"""The balance of experts against equations 4 to 6 of Fedus et al. 2021, written naively over the router's logits."""

import json

import pytest
import torch
from ftk import ConfigError, ModelError
from ftk.opening import open_run
from ftk.run import Run
from ftk.testing import check_plugin, run_in
from ftk.testing.runs import plan_in

MIXTRAL = "ftk://random/mixtral"


def test_the_plugin_keeps_the_contract():
    assert check_plugin("moe")


def loaded(tmp_path, address=MIXTRAL, weight=0.5, **more):
    settings = {"finetuning_type": "full", "moe_aux_loss_coef": weight, **more}
    return Run(plan_in(tmp_path, model_name_or_path=address, **settings)).model(trainable=True).eval()


def naive_balance(model, ids, top):
    """Experts times the sum over experts of (share of the choices that fell on it) x (mean probability), all layers as
    one long text; transformers does not divide the shares by the number of choices per token."""
    logits = torch.cat([one.flatten(0, -2) for one in model(ids, output_router_logits=True).router_logits])
    probabilities = logits.softmax(-1)
    count = logits.shape[-1]
    total = 0.0
    for expert in range(count):
        chosen = (probabilities.topk(top, dim=-1).indices == expert).any(-1).float().mean()
        total += chosen * probabilities[:, expert].mean()
    return float(count * total)


@pytest.mark.parametrize("family", ["mixtral", "qwen2_moe", "qwen3_moe", "gpt_oss"])
def test_it_is_the_formula_times_the_weight(tmp_path, family):
    found = []
    for weight in (0.0, 0.5):
        model = loaded(tmp_path, f"ftk://random/{family}", weight)
        ids = torch.randint(5, 300, (2, 12), generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            found.append(float(model(ids, labels=ids).loss))
            balance = naive_balance(model, ids, model.config.num_experts_per_tok)
    assert found[1] - found[0] == pytest.approx(0.5 * balance, rel=1e-3)
    assert balance > 0.5


def losses(folder):
    return [json.loads(line)["loss"] for line in (folder / "trainer_log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("finetuning_type", ["lora", "full"])
def test_a_run_trains_with_it_resumes_and_its_result_does_not_turn_it_on(tmp_path, finetuning_type):
    settings = {"model_name_or_path": MIXTRAL, "finetuning_type": finetuning_type, "template": "chatml", "max_steps": 3}
    with_it = {**settings, "moe_aux_loss_coef": 1.0}
    finished = run_in(tmp_path, **with_it, save_strategy="steps", save_steps=2)
    plain = run_in(tmp_path, **settings, output_dir=str(tmp_path / "plain"))
    assert 0.5 < losses(finished.folder)[0] - losses(plain.folder)[0] < 4
    again = run_in(
        tmp_path, **with_it, output_dir=str(tmp_path / "again"),
        resume_from_checkpoint=str(finished.folder / "checkpoint-2"),
    )  # fmt: skip
    assert losses(again.folder)[-1] == losses(finished.folder)[-1]
    model = open_run("chat", str(finished.folder)).model(trainable=False)
    output = model(torch.arange(9)[None], labels=torch.arange(9)[None])
    assert output.get("aux_loss") is None


@pytest.mark.parametrize(
    ("address", "kind", "said"),
    [("ftk://random/llama", ConfigError, "llama has no loss for experts"),
     ("ftk://random/deepseek_v3", ConfigError, "deepseek_v3 has no loss for experts")],
)  # fmt: skip
def test_a_family_without_such_a_loss_is_refused_before_loading(tmp_path, address, kind, said):
    with pytest.raises(kind, match=said):
        loaded(tmp_path, address)


def test_a_weight_that_a_model_does_nothing_with_is_noticed(tmp_path):
    model = loaded(tmp_path, "ftk://random/llama4_text")
    ids = torch.arange(9)[None]
    with pytest.raises(ModelError, match="no loss for the experts of llama4_text"):
        model(ids, labels=ids)
    assert model(ids).logits is not None
