"""SimPO against the golden values that were made from the paper, its formula written naively, and a whole run."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ftk.testing import check_plugin, run_in
from ftk_dpo.scores import PairScores
from ftk_simpo import build

SHARED = Path(__file__).resolve().parents[4] / "shared" / "golden" / "preference_losses.json"
CASES = json.loads(SHARED.read_text()) if SHARED.exists() else []


def losses(chosen, rejected, beta, gamma):
    nothing = torch.zeros(len(chosen))
    run = SimpleNamespace(options=lambda cls: SimpleNamespace(pref_beta=beta, simpo_gamma=gamma))
    return build(run)(PairScores(chosen, rejected, nothing, nothing, torch.zeros(2)))


def test_the_plugin_keeps_the_contract():
    assert check_plugin("simpo")


@pytest.mark.skipif(not CASES, reason="shared/golden is not beside this checkout")
@pytest.mark.parametrize("case", [one for one in CASES if one["loss"] == "simpo"], ids=lambda one: str(one["params"]))
def test_golden_values(case):
    given = {key: torch.tensor(value, dtype=torch.float64) for key, value in case["inputs"].items()}
    chosen, rejected = (given[f"policy_{side}_logps"] / given[f"{side}_len"] for side in ("chosen", "rejected"))
    made = losses(chosen, rejected, case["params"]["beta"], case["params"]["gamma"])
    assert made.losses_P.tolist() == pytest.approx(case["expected_per_pair"], rel=1e-8)


def test_values_and_gradients_are_the_papers():
    """d loss / d log p(y_w) = -β σ(-(margin - γ)), by hand."""
    chosen, rejected = torch.tensor([-0.5, -1.0], requires_grad=True), torch.tensor([-0.7, -0.2])
    made = losses(chosen, rejected, 2.0, 0.5)
    margins = [2 * (-0.5 + 0.7) - 0.5, 2 * (-1.0 + 0.2) - 0.5]
    assert made.losses_P.tolist() == pytest.approx([math.log(1 + math.exp(-one)) for one in margins], rel=1e-6)
    made.losses_P.sum().backward()
    assert chosen.grad.tolist() == pytest.approx([-2 / (1 + math.exp(one)) for one in margins], rel=1e-6)
    assert (made.chosen_rewards_P - made.rejected_rewards_P).tolist() == pytest.approx([0.4, -1.6])


ROWS = [
    {"instruction": f"Say {word}.", "chosen": word, "rejected": "no, never"} for word in ("one", "two", "three", "four")
]


@pytest.mark.parametrize("loss", ["simpo", "orpo"])
def test_a_run_without_a_reference_loads_none_and_learns(tmp_path, caplog, loss):
    caplog.set_level("INFO", "ftk")
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps(ROWS))
    columns = {"prompt": "instruction", "chosen": "chosen", "rejected": "rejected"}
    entry = {"file_name": str(path), "ranking": True, "columns": columns}
    run_in(
        tmp_path, stage="dpo", pref_loss=loss, pref_beta=1.0, dataset=[entry], template="chatml", max_steps=6,
        finetuning_type="full", learning_rate=1e-3, per_device_train_batch_size=4,
    )  # fmt: skip
    lines = [json.loads(line) for line in (tmp_path / "out" / "trainer_log.jsonl").read_text().splitlines()]
    assert "reference:" not in caplog.text
    assert lines[-1]["loss"] < 0.9 * lines[0]["loss"]
    assert lines[-1]["rewards/margins"] > lines[0]["rewards/margins"]
    assert lines[0]["rewards/chosen"] == pytest.approx(lines[0]["logps/chosen"], rel=1e-5)  # means, not sums


def test_the_check_of_verify_passes_and_finds_a_wrong_loss_out(tmp_path, monkeypatch):
    verify = pytest.importorskip("ftk_verify.testing", reason="ftk verify makes the check")
    rows = [{"instruction": "Say " * n, "chosen": "one " * n, "rejected": "no " * (4 - n)} for n in (1, 2, 3)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    entry = {"file_name": str(tmp_path / "rows.json"), "ranking": True}
    entry["columns"] = {"prompt": "instruction", "chosen": "chosen", "rejected": "rejected"}
    given = {"model_name_or_path": "ftk://random/llama", "template": "chatml", "dataset": [entry]}
    given |= {"stage": "dpo", "pref_loss": "simpo", "pref_beta": 0.5}
    found = verify.outcome_in(tmp_path, "simpo-loss", **given)
    assert found.passed, found
    right = torch.nn.functional.logsigmoid
    monkeypatch.setattr(torch.nn.functional, "logsigmoid", lambda margins_P: right(2 * margins_P))
    assert verify.outcome_in(tmp_path, "simpo-loss", **given).passed is False
