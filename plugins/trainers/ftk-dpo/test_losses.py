"""The losses of pairs, value and gradient, against the golden values that were made from the papers, and against the
papers' formulas written naively, in float64, pair by pair, with the math module.
"""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ftk import ConfigError
from ftk_dpo import DpoOptions
from ftk_dpo.baselines import Baselines
from ftk_dpo.losses import bco, hinge, ipo, kto_pair, sigmoid
from ftk_dpo.scores import PairScores
from ftk_dpo.training import length_weights
from ftk_training.logprobs import LogProbs

SHARED = Path(__file__).resolve().parents[4] / "shared" / "golden" / "preference_losses.json"
CASES = json.loads(SHARED.read_text()) if SHARED.exists() else []
GOLDEN = {"dpo_sigmoid": (sigmoid, False), "dpo_hinge": (hinge, False), "ipo_sum": (ipo, False), "ipo_avg": (ipo, True)}
POLICY, REFERENCE = ((-3.0, -2.0), (-5.5, -1.5)), ((-2.9, -2.6), (-4.0, -2.5))
DRIFT = (0.3, -0.2)


def run_with(beta, smoothing=0.0):
    def options(cls):
        given = {"dpo_label_smoothing": smoothing} if cls is DpoOptions else {"pref_beta": beta}
        return SimpleNamespace(**given)

    return SimpleNamespace(options=options, plan=SimpleNamespace(where=lambda key: f"run.yaml:1: {key}: {beta}"))


@pytest.mark.skipif(not CASES, reason="shared/golden is not beside this checkout")
@pytest.mark.parametrize(
    "case", [one for one in CASES if one["loss"] in GOLDEN], ids=lambda one: f"{one['loss']} {one['params']}"
)
def test_golden_values(case):
    build, averaged = GOLDEN[case["loss"]]
    given = {key: torch.tensor(value, dtype=torch.float64) for key, value in case["inputs"].items()}
    sides = [
        given[f"{who}_{side}_logps"] / (given[f"{side}_len"] if averaged else 1)
        for who in ("policy", "ref")
        for side in ("chosen", "rejected")
    ]
    run = run_with(case["params"]["beta"], case["params"].get("label_smoothing", 0.0))
    made = build(run)(PairScores(*sides, torch.zeros(2)))
    assert made.losses_P.tolist() == pytest.approx(case["expected_per_pair"], rel=1e-8)
    assert made.losses_P.mean().item() == pytest.approx(case["expected_mean"], rel=1e-8)


def s(x):
    return 1 / (1 + math.exp(-x))


def margin(w, x, rw, rx):
    return (w - rw) - (x - rx)


BETA, EPSILON = 0.4, 0.2
NAIVE = {
    "dpo": (sigmoid, 0.0, lambda *at: -math.log(s(BETA * margin(*at)))),
    "cdpo": (
        sigmoid,
        EPSILON,
        lambda *at: -(1 - EPSILON) * math.log(s(BETA * margin(*at))) - EPSILON * math.log(s(-BETA * margin(*at))),
    ),
    "slic": (hinge, 0.0, lambda *at: max(0.0, 1 - BETA * margin(*at))),
    "ipo": (ipo, 0.0, lambda *at: (margin(*at) - 1 / (2 * BETA)) ** 2),
    "kto_pair": (
        kto_pair,
        0.0,
        lambda w, x, rw, rx: (
            ((1 - s(BETA * ((w - rw) - max(DRIFT[1], 0)))) + (1 - s(BETA * (max(DRIFT[0], 0) - (x - rx))))) / 2
        ),
    ),
}


@pytest.mark.parametrize("name", NAIVE)
def test_values_and_gradients_are_the_papers(name):
    build, smoothing, naive = NAIVE[name]
    sides = [torch.tensor(one, dtype=torch.float64, requires_grad=True) for one in (*POLICY, *REFERENCE)]
    made = build(run_with(BETA, smoothing))(PairScores(*sides, torch.tensor(DRIFT)))
    points = list(zip(*POLICY, *REFERENCE, strict=True))
    assert made.losses_P.tolist() == pytest.approx([naive(*at) for at in points], rel=1e-7)
    made.losses_P.sum().backward()
    step = 1e-6
    for number, (w, x, rw, rx) in enumerate(points):
        slopes = (
            (naive(w + step, x, rw, rx) - naive(w - step, x, rw, rx)) / (2 * step),
            (naive(w, x + step, rw, rx) - naive(w, x - step, rw, rx)) / (2 * step),
        )
        found = (sides[0].grad[number].item(), sides[1].grad[number].item())
        assert found == pytest.approx(slopes, rel=1e-5, abs=1e-9)
    assert made.chosen_rewards_P.tolist() == pytest.approx([BETA * (w - rw) for w, _, rw, _ in points])


def test_bco_is_the_papers():
    """Eq. 7: cross-entropy of a classifier whose logit is the reward over the baseline."""
    good, bad, baseline = torch.tensor([0.4, -0.1]), torch.tensor([0.2, -0.7]), 0.15
    expected = [-math.log(s(g - 0.15)) - math.log(s(-(b - 0.15))) for g, b in ((0.4, 0.2), (-0.1, -0.7))]
    assert bco(good, bad, baseline).tolist() == pytest.approx(expected, rel=1e-6)


def test_the_baseline_of_bco_is_the_mean_reward_of_all_earlier_steps(tmp_path):
    made = Baselines()
    made.accelerator = SimpleNamespace(num_processes=1)
    made.add(torch.tensor([1.0, 3.0]), torch.tensor([0.0, 0.0]))
    made.add(torch.tensor([6.0]), torch.tensor([-2.0]))
    assert made.mean_reward == 0  # the step is not over
    made.step_begins()
    assert made.mean_reward == pytest.approx(8 / 6)
    made.add(torch.tensor([2.0]), torch.tensor([2.0]))
    made.save(tmp_path, first=True)
    again = Baselines()
    again.restore(tmp_path)
    assert again.mean_reward == made.mean_reward == pytest.approx(12 / 8)


def test_length_desensitised_weights_are_the_papers():
    """LD-DPO, eq. 10: tokens up to the shorter length count fully, those beyond it α."""
    texts = torch.tensor([0, 0, 0, 0, 0, 1, 2, 2, 3, 3])  # chosen 5 and 1 tokens, rejected 2 and 2
    found = LogProbs(torch.ones(10), texts, 4)
    assert length_weights(found, 0.25).tolist() == [1, 1, 0.25, 0.25, 0.25, 1, 1, 1, 1, 0.25]


def test_ipo_without_a_beta_is_refused():
    with pytest.raises(ConfigError, match="ipo divides by it"):
        ipo(run_with(0.0))
