"""ASFT. Reference: the formula of arXiv:2509.23753 over one token after the other, with two models side by side;
``golden_losses.txt``.

When the golden losses have to move, ``python test_asft.py`` beside this file writes them anew; say why in the commit.
"""

import json
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ftk.run import Run
from ftk.testing import check_plugin, run_in
from ftk.testing.runs import plan_in
from ftk_asft import AsftOptions, build
from transformers import AutoModelForCausalLM

GOLDEN = Path(__file__).with_name("golden_losses.txt")
ALPHA = 0.7
SETTINGS = {"template": "chatml", "use_asft_loss": True, "asft_alpha": ALPHA, "learning_rate": 1e-2}


def test_the_plugin_keeps_the_contract():
    assert check_plugin("asft")


def naive(logits, label, reference):
    """-p log p with p for nothing, plus alpha * sum over words of q log (q / p)."""
    p, q = logits.log_softmax(-1), reference.log_softmax(-1)
    return -p[label] * p[label].exp().detach() + ALPHA * (q.exp() * (q - p)).sum()


def test_values_and_gradients_are_those_of_the_formula():
    torch.manual_seed(0)
    logits = torch.randn(6, 30, dtype=torch.float64, requires_grad=True)
    reference = torch.randn(6, 30, dtype=torch.float64)
    labels = torch.randint(0, 30, (6,))
    found, metrics = build(SimpleNamespace(options=lambda cls: AsftOptions(asft_alpha=ALPHA)))(
        logits, labels, reference
    )
    wanted = torch.stack([naive(*each) for each in zip(logits, labels, reference, strict=True)])
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(torch.autograd.grad(found.sum(), logits), torch.autograd.grad(wanted.sum(), logits))
    assert (metrics["divergence"] > 0).all()


def log_of(folder):
    lines = [json.loads(line) for line in (folder / "out" / "trainer_log.jsonl").read_text().splitlines()]
    return [line for line in lines if "loss" in line]


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_the_second_step_is_measured_against_the_model_before_the_first(tmp_path, kind):
    """Two steps on the same four rows: at first nothing has drifted; then two models are compared token by token."""
    steps = {"per_device_train_batch_size": 4, "finetuning_type": kind, "max_grad_norm": 0.0}
    plan = plan_in(tmp_path, **SETTINGS, **steps)
    rows = Run(plan).rows("train")
    run_in(tmp_path, **SETTINGS, **steps, max_steps=2)
    first, second = log_of(tmp_path)
    assert first["divergence"] == pytest.approx(0, abs=1e-6)
    (tmp_path / "one").mkdir()
    trained = run_in(tmp_path / "one", **SETTINGS, **steps, max_steps=1, lr_scheduler_type="linear", warmup_steps=0)
    more = {"adapter_name_or_path": [str(trained.folder)]} if kind == "lora" else {}
    name = {} if kind == "lora" else {"model_name_or_path": str(trained.folder)}
    policy = Run(plan_in(tmp_path, **{**SETTINGS, **steps, **more, **name})).model(trainable=False).eval()
    before = AutoModelForCausalLM.from_pretrained(Run(plan).model_path).eval()
    total = count = 0
    with torch.no_grad():
        for row in (rows[n] for n in range(4)):
            ids = torch.tensor(row["input_ids"])[None]
            logits, reference = policy(ids).logits[0], before(ids).logits[0]
            for place, label in enumerate(row["labels"]):
                if label != -100:
                    total += float(naive(logits[place - 1], int(label), reference[place - 1]))
                    count += 1
    assert second["loss"] == pytest.approx(total / count, rel=1e-4)
    assert second["divergence"] > 1e-4


def test_accumulation_and_packing_change_nothing(tmp_path):
    """One packed row, two batches of two, and four of one: all four rows are a step."""
    found = []
    for name, shape in {
        "whole": {"per_device_train_batch_size": 4},
        "halves": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
        "rows": {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4},
        "packed": {"per_device_train_batch_size": 1, "packing": True, "cutoff_len": 512},
    }.items():
        (tmp_path / name).mkdir()
        run_in(tmp_path / name, **{**SETTINGS, **shape, "max_steps": 3})
        found.append([value for line in log_of(tmp_path / name) for value in (line["loss"], line["grad_norm"])])
    for one in found[1:]:
        assert one == pytest.approx(found[0], rel=1e-3)


def test_a_named_reference_is_taken(tmp_path):
    run_in(tmp_path, **SETTINGS, max_steps=1, ref_model="ftk://random/llama?seed=1")
    assert log_of(tmp_path)[0]["divergence"] > 1e-3


def golden_losses(folder, **more):
    run_in(folder, **SETTINGS, max_steps=5, **more)
    return [line["loss"] for line in log_of(folder)]


def test_five_losses_have_not_moved(tmp_path):
    golden = [float(line) for line in GOLDEN.read_text().splitlines()]
    assert golden_losses(tmp_path) == pytest.approx(golden, rel=1e-4)


def test_a_resumed_run_is_held_to_the_model_of_its_beginning(tmp_path):
    """A full run: after a resume the weights are those of step 2, and the reference still those before step 1."""
    golden = golden_losses(tmp_path, finetuning_type="full")
    (tmp_path / "resumed").mkdir()
    half = {"finetuning_type": "full", "save_steps": 2, "save_strategy": "steps"}
    golden_losses(tmp_path / "resumed", **half)
    again = tmp_path / "resumed" / "out"
    resumed = run_in(
        tmp_path / "resumed", **SETTINGS, **half, max_steps=5, output_dir=str(tmp_path / "resumed" / "again"),
        resume_from_checkpoint=str(again / "checkpoint-2"),
    )  # fmt: skip
    lines = [json.loads(line) for line in (resumed.folder / "trainer_log.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in lines if "loss" in line] == pytest.approx(golden[2:], rel=1e-6)


def test_the_check_of_verify_passes_and_finds_a_wrong_loss_out(tmp_path, monkeypatch):
    verify = pytest.importorskip("ftk_verify.testing", reason="ftk verify makes the check")
    rows = [{"instruction": "Say " * n, "output": "one " * n} for n in (1, 2, 3)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    given = {"model_name_or_path": "ftk://random/llama", "template": "chatml", "dataset": str(tmp_path / "rows.json")}
    given |= {"stage": "sft", "use_asft_loss": True}
    given |= {"asft_alpha": 5.0}
    found = verify.outcome_in(tmp_path, "asft-loss", **given)
    assert found.passed, found
    right = torch.nn.functional.kl_div
    monkeypatch.setattr(torch.nn.functional, "kl_div", lambda *given, **named: 2 * right(*given, **named))
    assert verify.outcome_in(tmp_path, "asft-loss", **given).passed is False


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        GOLDEN.write_text("".join(f"{loss:.7f}\n" for loss in golden_losses(Path(name))))
