"""EAFT. Reference: the words of arXiv:2601.02151 over one token after the other; ``golden_losses.txt``.

When the golden losses have to move, ``python test_eaft.py`` beside this file writes them anew; say why in the commit.
"""

import json
import math
import tempfile
from pathlib import Path
from types import SimpleNamespace

import ftk_eaft
import pytest
import torch
from ftk.testing import check_plugin, run_in
from ftk.testing.runs import plan_in
from ftk_eaft import EaftOptions, build

GOLDEN = Path(__file__).with_name("golden_losses.txt")


def test_the_plugin_keeps_the_contract():
    assert check_plugin("eaft")


def naive_weight(logits, alpha):
    likely = sorted(logits.exp().tolist(), reverse=True)[:20]
    shares = [one / sum(likely) for one in likely]
    return (-sum(share * math.log(share) for share in shares) / 3) ** alpha


@pytest.mark.parametrize("words", [7, 300])
@pytest.mark.parametrize("alpha", [0.0, 1.0, 1.7])
def test_values_and_gradients_are_those_of_the_formula(alpha, words):
    torch.manual_seed(0)
    logits = torch.randn(6, words, dtype=torch.float64).mul(3).requires_grad_()
    labels = torch.randint(0, words, (6,))
    found, metrics = build(SimpleNamespace(options=lambda cls: EaftOptions(eaft_alpha=alpha)))(logits, labels)
    (gradient,) = torch.autograd.grad(found.sum(), logits)
    for row, label in enumerate(labels):
        p = logits[row].detach().exp() / logits[row].detach().exp().sum()
        weight = naive_weight(logits[row].detach(), alpha)
        assert found[row].item() == pytest.approx(float(-p[label].log()) * weight)
        assert metrics["entropy"][row].item() == pytest.approx(naive_weight(logits[row].detach(), 1) * 3)
        torch.testing.assert_close(gradient[row], weight * (p - torch.nn.functional.one_hot(label, words)))


def golden_losses(folder, **more):
    run_in(folder, template="chatml", use_eaft_loss=True, eaft_alpha=2.0, max_steps=5, learning_rate=1e-2, **more)
    lines = [json.loads(line) for line in (folder / "out" / "trainer_log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines]


def test_five_losses_have_not_moved(tmp_path):
    golden = [float(line) for line in GOLDEN.read_text().splitlines()]
    assert golden_losses(tmp_path) == pytest.approx(golden, rel=1e-4)


def test_an_exponent_alone_is_reported(tmp_path):
    assert any("eaft_alpha: has no effect" in note for note in plan_in(tmp_path, eaft_alpha=2.0).notes)


def test_the_check_of_verify_passes_and_finds_a_wrong_loss_out(tmp_path, monkeypatch):
    verify = pytest.importorskip("ftk_verify.testing", reason="ftk verify makes the check")
    rows = [{"instruction": "Say " * n, "output": "one " * n} for n in (1, 2, 3)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    given = {"model_name_or_path": "ftk://random/llama", "template": "chatml", "dataset": str(tmp_path / "rows.json")}
    given |= {"stage": "sft", "use_eaft_loss": True}
    found = verify.outcome_in(tmp_path, "eaft-loss", **given)
    assert found.passed, found
    monkeypatch.setattr(ftk_eaft, "SCALE", 2.0)
    assert verify.outcome_in(tmp_path, "eaft-loss", **given).passed is False


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        GOLDEN.write_text("".join(f"{loss:.7f}\n" for loss in golden_losses(Path(name))))
