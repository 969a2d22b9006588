"""Losses of tokens by a plugin's formula. Reference: the stage's own loss, which the cross-entropy as a formula must
equal in every shape of batch, and loops over tokens written from the words of the docstrings."""

import json
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ftk import ConfigError, PluginError
from ftk.run import Run
from ftk.testing.runs import plan_in
from ftk_sft.token_losses import TokenLosses, count_tokens
from ftk_training.collator import Collator
from transformers import AutoModelForCausalLM

PLUGIN = """
import ftk
from ftk_sft import SftLoss

@ftk.options
class PlainOptions:
    use_plain_loss: bool = ftk.option(False, help="The cross-entropy.")
    use_other_loss: bool = ftk.option(False, help="Another.")

@ftk.hookimpl
def ftk_sft_losses():
    yield SftLoss("plain", target="ftk_plain:build", options=PlainOptions, switch="use_plain_loss", summary="As is",
                  excludes=("label_smoothing_factor>0",))
    yield SftLoss("other", target="ftk_plain:build", options=PlainOptions, switch="use_other_loss", summary="As is")

def build(run):
    from torch.nn.functional import cross_entropy
    return lambda logits_NV, labels_N: (cross_entropy(logits_NV, labels_N, reduction="none"), {"one": labels_N * 0 + 1})
"""


@pytest.fixture
def plain(fake_plugin):
    fake_plugin("plain", PLUGIN, requires="ftk-kernel>=0.1")


def dataset(folder):
    """Uneven conversations, one with a turn that weighs half as much."""
    rows = []
    for count in (3, 1, 6, 2, 5, 1, 4, 2):
        turns = [{"role": "user", "content": f"say {count}"}, {"role": "assistant", "content": " word" * count}]
        rows.append({"messages": turns + turns if count % 2 else turns})
    rows[0]["messages"][1]["weight"] = 0.5
    rows[5]["messages"][3]["weight"] = 2.0
    path = folder / "rows.json"
    path.write_text(json.dumps(rows))
    return [{"file_name": str(path), "formatting": "openai", "columns": {"messages": "messages"}}]


def settings_of(folder, **more):
    return {
        "template": "chatml", "finetuning_type": "full", "dataset": dataset(folder), "disable_shuffling": True,
        "cutoff_len": 128, "max_steps": 3, **more,
    }  # fmt: skip


def log_of(finished):
    return [json.loads(line) for line in (finished.folder / "trainer_log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    "shape",
    [
        {"per_device_train_batch_size": 4},
        {"per_device_train_batch_size": 1, "packing": True, "cutoff_len": 256},
        {"per_device_train_batch_size": 4, "padding_free": True},
        {"per_device_train_batch_size": 4, "model_name_or_path": "ftk://random/mamba"},
        {"per_device_train_batch_size": 4, "finetuning_type": "lora", "additional_target": "lm_head"},
        {"per_device_train_batch_size": 4, "model_name_or_path": "ftk://random/mixtral?output_router_logits=true"},
    ],
    ids=["padded", "packed", "flat", "mamba", "lora", "experts"],
)
def test_cross_entropy_as_a_formula_is_the_stages_own_loss(ftk_run, tmp_path, plain, shape):
    own = log_of(ftk_run(**settings_of(tmp_path, **shape, output_dir=str(tmp_path / "own"))))
    made = log_of(ftk_run(**settings_of(tmp_path, **shape, use_plain_loss=True)))
    for before, after in zip(own, made, strict=True):
        assert after["loss"] == pytest.approx(before["loss"], rel=2e-5)
        assert after["grad_norm"] == pytest.approx(before["grad_norm"], rel=1e-3)
        assert after["one"] == 1.0


def test_accumulation_changes_nothing(ftk_run, tmp_path, plain):
    found = []
    for batch, accumulated in ((8, 1), (4, 2), (2, 4), (1, 8)):
        more = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulated, "max_steps": 2}
        out = str(tmp_path / f"{batch}")
        log = log_of(ftk_run(**settings_of(tmp_path, **more, use_plain_loss=True, output_dir=out)))
        found.append([value for line in log if "loss" in line for value in (line["loss"], line["grad_norm"])])
    for one in found[1:]:
        assert one == pytest.approx(found[0], rel=2e-5)


def test_losses_are_the_same_in_pieces_and_in_evaluation(tmp_path, plain, monkeypatch):
    run = Run(plan_in(tmp_path, **settings_of(tmp_path, use_plain_loss=True)))
    rows = run.rows("train")
    model = AutoModelForCausalLM.from_pretrained(run.model_path)
    batch = Collator()([rows[0], rows[1], rows[5]])
    loss = TokenLosses(run, run.plan.one("sft_loss"))
    total, sums = loss(model, batch)
    (gradient,) = torch.autograd.grad(total, [model.lm_head.weight])
    right = surprise = weighted = 0.0
    with torch.no_grad():
        for row in (rows[0], rows[1], rows[5]):
            logs = model(torch.tensor(row["input_ids"])[None]).logits[0].log_softmax(-1)
            weights = row.get("loss_weights", np.ones(len(row["labels"])))
            for place, label in enumerate(row["labels"]):
                if label != -100:
                    surprise -= float(logs[place - 1, label])
                    weighted -= float(logs[place - 1, label]) * weights[place]
                    right += int(logs[place - 1].argmax() == label)
        assert total.item() == pytest.approx(weighted, rel=1e-5)
        assert sums["cross_entropy"].item() == pytest.approx(surprise, rel=1e-5)
        evaluated, more = loss(model, batch)
        assert (evaluated.item(), more["accuracy"].item()) == (pytest.approx(total.item()), right)
        assert count_tokens(batch) == sum((row["labels"] != -100).sum() for row in (rows[0], rows[1], rows[5]))
    monkeypatch.setattr("ftk_sft.token_losses.LOGITS_AT_ONCE", 1)
    pieces, _ = loss(model, batch)
    torch.testing.assert_close(pieces, total, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.autograd.grad(pieces, [model.lm_head.weight])[0], gradient, rtol=1e-4, atol=1e-5)


def test_logits_are_made_only_where_somebody_learns(tmp_path, plain):
    run = Run(plan_in(tmp_path, **settings_of(tmp_path, use_plain_loss=True)))
    rows = run.rows("train")
    model = AutoModelForCausalLM.from_pretrained(run.model_path)
    seen = []
    model.lm_head.register_forward_hook(lambda _, inputs, output: seen.append(output.shape[:-1].numel()))
    batch = Collator()([rows[1], rows[2]])
    TokenLosses(run, run.plan.one("sft_loss"))(model, batch)
    assert seen == [count_tokens(batch)]


def test_an_evaluation_reports_the_loss_the_cross_entropy_and_the_accuracy(ftk_run, tmp_path, plain):
    data = settings_of(tmp_path, use_plain_loss=True, do_train=False, do_eval=True)
    metrics = [
        ftk_run(
            **data, eval_dataset=data["dataset"], per_device_eval_batch_size=size, overwrite_output_dir=True
        ).metrics
        for size in (1, 8)
    ]
    for name in ("eval_loss", "eval_cross_entropy", "eval_accuracy", "eval_one"):
        assert metrics[0][name] == pytest.approx(metrics[1][name], rel=1e-5)


def test_two_losses_and_smoothing_are_refused_in_one_line(tmp_path, plain):
    with pytest.raises(PluginError, match="exclude each other: a run takes one sft_loss") as error:
        plan_in(tmp_path, use_plain_loss=True, use_other_loss=True)
    assert len(str(error.value).splitlines()) == 1
    with pytest.raises(ConfigError, match="sft_loss:plain and label_smoothing_factor>0 exclude each other"):
        plan_in(tmp_path, use_plain_loss=True, label_smoothing_factor=0.1)
    with pytest.raises(ConfigError, match="use_plain_loss: needs trainer:sft"):
        plan_in(tmp_path, use_plain_loss=True, stage="pt")


def test_the_reference_is_given_all_that_the_policy_is(monkeypatch):
    """Pictures, positions and masks; and nobody learns from what it says."""
    given = []

    def logits(model, inputs, targets):
        given.append((model, dict(inputs)))
        return torch.zeros(len(targets), 7, requires_grad=torch.is_grad_enabled())

    class Reference:
        @contextmanager
        def model(self, policy):
            with torch.no_grad():
                yield "reference"

    formula = lambda mine, labels, theirs: ((mine - theirs).square().sum(-1), {})  # noqa: E731
    spec = SimpleNamespace(load=lambda: lambda run: formula, reference=True, switch=None)
    monkeypatch.setattr("ftk_sft.token_losses.target_logits", logits)
    loss = TokenLosses(None, spec)
    loss.reference = Reference()
    ids = torch.arange(6)[None]
    batch = {
        "input_ids": ids,
        "labels": ids,
        "position_ids": ids,
        "pixel_values": torch.rand(1, 3),
        "loss_weights": ids,
    }
    loss(torch.nn.Linear(1, 1), batch)
    (_, mine), (who, theirs) = given
    assert who == "reference"
    assert mine.keys() == theirs.keys() == {"input_ids", "position_ids", "pixel_values"}
    assert all(mine[name] is theirs[name] for name in mine)


def test_several_gpus_in_one_process_are_refused_in_one_line(tmp_path, plain):
    run = Run(plan_in(tmp_path, use_plain_loss=True))
    trainer = SimpleNamespace(args=SimpleNamespace(n_gpu=2), run=run)
    with pytest.raises(ConfigError, match=r"use_plain_loss: True: one process drives 2 GPUs.*torchrun"):
        TokenLosses(run, run.plan.one("sft_loss")).begin(trainer)
