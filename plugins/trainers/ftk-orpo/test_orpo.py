"""ORPO against the golden values that were made from the paper, and its formula written naively."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import ftk_orpo
import pytest
import torch
from ftk.testing import check_plugin
from ftk_dpo.scores import PairScores
from ftk_orpo import build

SHARED = Path(__file__).resolve().parents[4] / "shared" / "golden" / "preference_losses.json"
CASES = json.loads(SHARED.read_text()) if SHARED.exists() else []


def run_with(**values):
    return SimpleNamespace(options=lambda cls: SimpleNamespace(**values))


def scores(chosen, rejected):
    nothing = torch.zeros(len(chosen))
    return PairScores(chosen, rejected, nothing, nothing, torch.zeros(2))


def naive(chosen, rejected, beta):
    """Eq. 4 to 7 with p = exp(mean log-probability)."""
    odds = [math.exp(one) / (1 - math.exp(one)) for one in (chosen, rejected)]
    return -chosen - beta * math.log(1 / (1 + math.exp(-math.log(odds[0] / odds[1]))))


def test_the_plugin_keeps_the_contract():
    assert check_plugin("orpo")


@pytest.mark.skipif(not CASES, reason="shared/golden is not beside this checkout")
@pytest.mark.parametrize("case", [one for one in CASES if one["loss"] == "orpo"], ids=lambda one: str(one["params"]))
def test_golden_values(case):
    given = {key: torch.tensor(value, dtype=torch.float64) for key, value in case["inputs"].items()}
    chosen, rejected = (given[f"policy_{side}_logps"] / given[f"{side}_len"] for side in ("chosen", "rejected"))
    made = build(run_with(pref_beta=case["params"]["beta"]))(scores(chosen, rejected))
    assert made.losses_P.tolist() == pytest.approx(case["expected_per_pair"], rel=1e-8)
    assert made.losses_P.mean().item() == pytest.approx(case["expected_mean"], rel=1e-8)


def test_values_and_gradients_are_the_papers():
    chosen, rejected = (
        torch.tensor(one, dtype=torch.float64, requires_grad=True) for one in ([-0.3, -2], [-1.1, -0.4])
    )
    made = build(run_with(pref_beta=0.7))(scores(chosen, rejected))
    assert made.losses_P.tolist() == pytest.approx([naive(-0.3, -1.1, 0.7), naive(-2, -0.4, 0.7)], rel=1e-9)
    made.losses_P.sum().backward()
    for number, (one, other) in enumerate(((-0.3, -1.1), (-2, -0.4))):
        step = 1e-6
        slopes = (
            (naive(one + step, other, 0.7) - naive(one - step, other, 0.7)) / (2 * step),
            (naive(one, other + step, 0.7) - naive(one, other - step, 0.7)) / (2 * step),
        )
        assert (chosen.grad[number].item(), rejected.grad[number].item()) == pytest.approx(slopes, rel=1e-5)
    assert made.metrics["sft_loss"].tolist() == pytest.approx([0.3, 2.0])


def test_an_answer_that_is_certain_stays_finite():
    chosen = torch.tensor([0.0, -1e-9], requires_grad=True)
    made = build(run_with(pref_beta=0.1))(scores(chosen, torch.tensor([-1.0, 0.0])))
    made.losses_P.sum().backward()
    assert made.losses_P.isfinite().all()
    assert chosen.grad.isfinite().all()


def test_the_check_of_verify_passes_and_finds_a_wrong_loss_out(tmp_path, monkeypatch):
    verify = pytest.importorskip("ftk_verify.testing", reason="ftk verify makes the check")
    rows = [{"instruction": "Say " * n, "chosen": "one " * n, "rejected": "no " * (4 - n)} for n in (1, 2, 3)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    entry = {"file_name": str(tmp_path / "rows.json"), "ranking": True}
    entry["columns"] = {"prompt": "instruction", "chosen": "chosen", "rejected": "rejected"}
    given = {"model_name_or_path": "ftk://random/llama", "template": "chatml", "dataset": [entry]}
    given |= {"stage": "dpo", "pref_loss": "orpo", "pref_beta": 0.5}
    found = verify.outcome_in(tmp_path, "orpo-loss", **given)
    assert found.passed, found
    right = ftk_orpo._log_odds
    monkeypatch.setattr(ftk_orpo, "_log_odds", lambda log_probs_P: 2 * right(log_probs_P))
    assert verify.outcome_in(tmp_path, "orpo-loss", **given).passed is False
