"""DFT. Reference: equation 9 of arXiv:2508.05629 over one token after the other; ``golden_losses.txt``.

When the golden losses have to move, ``python test_dft.py`` beside this file writes them anew; say why in the commit.
"""

import json
import tempfile
from pathlib import Path

import ftk_dft
import pytest
import torch
from ftk import PluginError
from ftk.testing import check_plugin, run_in
from ftk.testing.runs import plan_in
from ftk_dft import losses

GOLDEN = Path(__file__).with_name("golden_losses.txt")


def test_the_plugin_keeps_the_contract():
    assert check_plugin("dft")


def test_values_and_gradients_are_those_of_the_formula():
    torch.manual_seed(0)
    logits = torch.randn(6, 30, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 30, (6,))
    found, metrics = losses(logits, labels)
    (gradient,) = torch.autograd.grad(found.sum(), logits)
    for row, label in enumerate(labels):
        p = logits[row].detach().exp() / logits[row].detach().exp().sum()
        assert found[row].item() == pytest.approx(float(-p[label] * p[label].log()))
        assert metrics["probability"][row].item() == pytest.approx(float(p[label]))
        naive = p[label] * (p - torch.nn.functional.one_hot(label, 30))  # p times the gradient of -log p
        torch.testing.assert_close(gradient[row], naive)


def golden_losses(folder, **more):
    run_in(folder, template="chatml", use_dft_loss=True, max_steps=5, learning_rate=1e-2, **more)
    lines = [json.loads(line) for line in (folder / "out" / "trainer_log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines]


def test_five_losses_have_not_moved(tmp_path):
    golden = [float(line) for line in GOLDEN.read_text().splitlines()]
    assert golden_losses(tmp_path) == pytest.approx(golden, rel=1e-4)


def test_it_excludes_the_others(tmp_path):
    with pytest.raises(
        PluginError, match="use_dft_loss and use_eaft_loss exclude each other: a run takes one sft_loss"
    ):
        plan_in(tmp_path, use_dft_loss=True, use_eaft_loss=True)


def test_the_check_of_verify_passes_and_finds_a_wrong_loss_out(tmp_path, monkeypatch):
    verify = pytest.importorskip("ftk_verify.testing", reason="ftk verify makes the check")
    rows = [{"instruction": "Say " * n, "output": "one " * n} for n in (1, 2, 3)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    given = {"model_name_or_path": "ftk://random/llama", "template": "chatml", "dataset": str(tmp_path / "rows.json")}
    given |= {"stage": "sft", "use_dft_loss": True}
    found = verify.outcome_in(tmp_path, "dft-loss", **given)
    assert found.passed, found
    right = ftk_dft.losses

    def doubled(logits_NV, labels_N):
        losses_N, told = right(logits_NV, labels_N)
        return 2 * losses_N, told

    monkeypatch.setattr(ftk_dft, "losses", doubled)
    assert verify.outcome_in(tmp_path, "dft-loss", **given).passed is False


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        GOLDEN.write_text("".join(f"{loss:.7f}\n" for loss in golden_losses(Path(name))))
