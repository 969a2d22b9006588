"""Losses that are no number, infinite or exploding. Reference: the same run over rows without the bad ones."""

import json
import math

import numpy as np
import pytest
import torch
from ftk import ConfigError
from ftk.testing.runs import plan_in
from ftk_sft import training
from ftk_training import bad_loss, fitting
from ftk_training.bad_loss import LossError
from ftk_training.fitting import fit
from ftk_training.trainer import ExactTrainer
from safetensors.torch import load_file

FULL = {
    "finetuning_type": "full",
    "template": "chatml",
    "max_steps": 5,
    "disable_shuffling": True,
    "learning_rate": 1e-3,
}


def rows_file(folder, count=20):
    path = folder / "rows.json"
    rows = [{"instruction": "say " * (1 + 2 * (n % 3)), "output": f"{'well ' * (1 + n % 4)}{n}"} for n in range(count)]
    path.write_text(json.dumps(rows))
    return str(path)


def lines_of(folder):
    return [json.loads(line) for line in (folder / "trainer_log.jsonl").read_text().splitlines()]


def staged(monkeypatch, turned):
    """The loss of stage sft, written as a stage would: ``turned(number of the micro-batch, sum) -> sum``; what it makes
    None counts for nothing. The number is from 0, forward passes without gradients left out."""
    seen = [0]

    def labels_of(batch):
        return batch["labels"][:, 1:]

    left_out = set()

    def loss(model, batch):
        labels = labels_of(batch)
        logprobs = model(**{k: v for k, v in batch.items() if k != "labels"}).logits[:, :-1].log_softmax(-1)
        surprise = -logprobs.gather(-1, labels.clamp(min=0)[..., None])[..., 0] * (labels != -100)
        total = surprise.sum()
        if not torch.is_grad_enabled():
            return total, {}
        changed = turned(seen[0], total)
        seen[0] += 1
        return (total * 0 if changed is None else changed), {"ones": (labels != -100).sum()}

    def count(batch):
        key = batch["input_ids"].sum().item()
        return torch.tensor(0) if key in left_out else (labels_of(batch) != -100).sum()

    monkeypatch.setattr(training, "train", lambda run: fit(run, loss=loss, count=count))
    return left_out


def test_a_loss_that_is_no_number_stops_the_run_and_its_batch_is_written_down(ftk_run, tmp_path, monkeypatch):
    staged(monkeypatch, lambda number, total: total * math.nan if number == 2 else total)
    settings = {**FULL, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    with pytest.raises(LossError, match=r"^step 2: the loss is nan; its batch is in .*bad_batch-2-0\.json\. Try"):
        ftk_run(**settings, dataset=rows_file(tmp_path))
    written = json.loads((tmp_path / "out" / "bad_batch-2-0.json").read_text())
    assert (written["step"], written["batch"], written["why"]) == (2, 0, "the loss is nan")
    assert [row["row"] for row in written["rows"]] == [4, 5]
    assert [row["trained"] for row in written["rows"]] == ["well 4<|im_end|>", "well well 5<|im_end|>"]
    assert all(row["trained"] in row["text"] for row in written["rows"])
    assert all(row["num_trained"] > 3 and 3 < row["loss"] < 12 for row in written["rows"])
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["status"] == "failed"
    assert "bad_batch-2-0.json" in record["files"]


def test_the_models_own_loss_is_written_down_row_by_row_and_document_by_document(ftk_run, tmp_path):
    """At such a rate the weights are no numbers after a step; before that, packed rows are told apart."""
    settings = {**FULL, "learning_rate": 1e30, "max_grad_norm": 0, "packing": True, "cutoff_len": 128}
    with pytest.raises(LossError, match=r"^step \d: the (loss is|gradients are) (nan|inf)"):
        ftk_run(**settings, dataset=rows_file(tmp_path))
    (path,) = (tmp_path / "out").glob("bad_batch-*.json")
    rows = json.loads(path.read_text())["rows"]
    assert all(len(row["documents"]) > 1 for row in rows)
    assert {document["trained"].split()[0] for row in rows for document in row["documents"]} == {"well"}


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e6])
def test_a_batch_that_is_left_out_leaves_the_rest_of_its_step_exact(ftk_run, tmp_path, monkeypatch, value, caplog):
    """Twelve good batches in groups of three, so that there is an ordinary loss, then a bad one between good ones."""
    settings = {**FULL, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 3, "max_steps": 6}
    settings |= {"dataset": rows_file(tmp_path), "on_bad_loss": "skip"}
    bad = 13

    def spoilt(number, total):
        return total * value if number == bad else total

    staged(monkeypatch, spoilt)
    found = ftk_run(**settings, output_dir=str(tmp_path / "found"))
    monkeypatch.undo()
    written = json.loads((tmp_path / "found" / "bad_batch-5-1.json").read_text())
    seen = sum(written["rows"][0]["input_ids"])
    left_out = staged(monkeypatch, lambda number, total: None if number == bad else total)
    left_out.add(seen)
    wanted = ftk_run(**settings, output_dir=str(tmp_path / "wanted"))
    for ours, theirs in zip(lines_of(found.folder), lines_of(wanted.folder), strict=True):
        assert [ours["loss"], ours["grad_norm"]] == pytest.approx([theirs["loss"], theirs["grad_norm"]], rel=1e-5)
        assert ours["ones"] == 1
    ours, theirs = (load_file(one.folder / "model.safetensors") for one in (found, wanted))
    for name, weight in theirs.items():
        torch.testing.assert_close(ours[name], weight, rtol=1e-4, atol=1e-6)
    assert found.metrics["skipped_batches"] == 1
    assert len([one for one in caplog.messages if one.startswith("step 5: ") and one.endswith("is left out")]) == 1


def test_a_step_of_bad_batches_alone_leaves_all_weights_alone(ftk_run, tmp_path, monkeypatch):
    """Also the momentum and the decay of the optimizer."""
    settings = {**FULL, "per_device_train_batch_size": 1, "max_steps": 3, "weight_decay": 0.1}
    settings |= {
        "dataset": rows_file(tmp_path),
        "on_bad_loss": "skip",
        "save_strategy": "steps",
        "save_steps": 1,
        "lr_scheduler_type": "constant",
    }
    staged(monkeypatch, lambda number, total: total * math.nan if number == 1 else total)
    folder = ftk_run(**settings).folder
    first, second, third = (load_file(folder / f"checkpoint-{step}" / "model.safetensors") for step in (1, 2, 3))
    assert all((first[name] == second[name]).all() for name in first)
    assert any((second[name] != third[name]).any() for name in first)


def test_it_does_with_the_scaler_of_fp16_too(ftk_run, tmp_path, monkeypatch):
    """The scaler on the CPU stands for that of a GPU; the scale stays as it is."""
    scalers = []

    class Scaling(ExactTrainer):
        def create_optimizer(self, model=None):
            scaler = self.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
            scalers.append(scaler)
            self.accelerator.unscale_gradients = lambda *_: scaler.unscale_(self.optimizer.optimizer)
            return super().create_optimizer(model)

    monkeypatch.setattr(fitting, "ExactTrainer", Scaling)
    settings = {**FULL, "per_device_train_batch_size": 1, "max_steps": 4, "on_bad_loss": "skip", "save_steps": 1}
    settings |= {"dataset": rows_file(tmp_path), "save_strategy": "steps", "lr_scheduler_type": "constant"}
    staged(monkeypatch, lambda number, total: total * math.nan if number in (1, 2) else total)
    folder = ftk_run(**settings).folder
    made = [load_file(folder / f"checkpoint-{step}" / "model.safetensors") for step in (1, 2, 3, 4)]
    for one, other, moved in zip(made[:3], made[1:], (False, False, True), strict=True):
        assert any(bool((one[name] != other[name]).any()) for name in one) is moved
    (scaler,) = scalers
    assert scaler.get_scale() == 64.0
    assert not scaler._per_optimizer_states


@pytest.mark.parametrize("way", ["stop", "skip"])
def test_gradients_that_are_no_numbers_are_a_bad_step(ftk_run, tmp_path, monkeypatch, way):
    """The loss is ordinary, so only the gradients tell."""

    class Spoil(torch.autograd.Function):
        @staticmethod
        def forward(ctx, value):
            return value.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * math.nan

    staged(monkeypatch, lambda number, total: Spoil.apply(total) if number == 1 else total)
    settings = {**FULL, "max_steps": 3, "on_bad_loss": way, "dataset": rows_file(tmp_path)}
    if way == "stop":
        with pytest.raises(LossError, match=r"^step 2: the gradients are nan; its batch is in .*bad_batch-2-0\.json"):
            ftk_run(**settings)
    else:
        weights = load_file(ftk_run(**settings).folder / "model.safetensors")
        assert all(weight.isfinite().all() for weight in weights.values())
    assert (tmp_path / "out" / "bad_batch-2-0.json").exists()


def test_an_exploding_loss_stops_and_ordinary_ones_do_not(ftk_run, tmp_path, monkeypatch):
    """Ordinary is a random model that learns rows of few tokens and of many; exploding is a thousand times that."""
    settings = {**FULL, "per_device_train_batch_size": 1, "max_steps": 18, "dataset": rows_file(tmp_path)}
    settings["learning_rate"] = 1e-2
    staged(monkeypatch, lambda number, total: total)
    ftk_run(**settings, output_dir=str(tmp_path / "ordinary"))
    monkeypatch.undo()
    staged(monkeypatch, lambda number, total: total * 1000 if number == 15 else total)
    with pytest.raises(LossError, match=r"^step 16: the loss is \d+, after \d.*\(exploding_loss: 10\)"):
        ftk_run(**settings, output_dir=str(tmp_path / "exploding"))
    monkeypatch.undo()
    staged(monkeypatch, lambda number, total: total * 1000 if number == 15 else total)
    ftk_run(**settings, exploding_loss=0, output_dir=str(tmp_path / "allowed"))


def test_a_hard_pair_late_in_an_easy_run_is_no_explosion():
    """Losses of preferences fall to almost nothing, and a pair that is ranked wrong costs several nats."""
    guard = bad_loss.LossGuard.__new__(bad_loss.LossGuard)
    guard.factor, guard.recent = 10.0, bad_loss.deque(maxlen=64)
    numbers = np.random.default_rng(0)
    ordinary = [*0.69 * np.exp(-np.arange(100) / 15), *numbers.exponential(0.01, 100), 8.0, *numbers.normal(0, 0.1, 50)]
    assert not any(guard._why(float(value)) for value in ordinary)
    assert guard._why(200.0)


@pytest.mark.parametrize("accumulated", [1, 2])
def test_losses_that_are_not_read_at_once_are_looked_at_a_step_later(ftk_run, tmp_path, monkeypatch, accumulated):
    """As on an accelerator: the step after the bad one has been computed, and is not taken, nor is anything saved."""
    make = bad_loss.LossGuard.__init__

    def later(self, trainer):
        make(self, trainer)
        self.at_once = False

    monkeypatch.setattr(bad_loss.LossGuard, "__init__", later)
    staged(monkeypatch, lambda number, total: total * math.nan if number == 2 * accumulated else total)
    settings = {**FULL, "per_device_train_batch_size": 1, "gradient_accumulation_steps": accumulated}
    settings |= {
        "dataset": rows_file(tmp_path),
        "logging_steps": 50,
        "save_strategy": "steps",
        "save_steps": 2,
        "max_grad_norm": 0.5,
    }
    with pytest.raises(LossError, match=r"^step 3: the loss is nan; its batch is in .*bad_batch-3-0\.json"):
        ftk_run(**settings)
    assert {path.name for path in (tmp_path / "out").glob("checkpoint-*")} == {"checkpoint-2"}
    assert json.loads((tmp_path / "out" / "bad_batch-3-0.json").read_text())["rows"][0]["row"] == 2 * accumulated


def test_a_row_without_trained_tokens_is_a_loss_of_nothing_and_no_nan(ftk_run, tmp_path, monkeypatch):
    """Rows of ftk have some; a batch may still have none, by a collator of a stage or a row that was cut."""
    from ftk.run import Run

    settings = {**FULL, "per_device_train_batch_size": 1, "max_steps": 3, "dataset": rows_file(tmp_path)}
    for number, more in enumerate(({}, {"model_name_or_path": "ftk://random/mamba"}, {"label_smoothing_factor": 0.1})):
        out = str(tmp_path / f"out-{number}")
        rows = list(Run(plan_in(tmp_path, **settings, **more)).rows("train"))
        rows[1] = {**rows[1], "labels": np.full_like(rows[1]["labels"], -100)}
        monkeypatch.setattr(Run, "rows", lambda self, split, rows=rows: rows)
        losses = [line["loss"] for line in lines_of(ftk_run(**settings, **more, output_dir=out).folder)]
        monkeypatch.undo()
        assert losses[1] == 0
        assert all(math.isfinite(loss) for loss in losses)


def test_leaving_out_needs_gradients_that_can_be_reached(ftk_run, tmp_path, monkeypatch):
    from ftk_training.trainer import ExactTrainer

    monkeypatch.setattr(ExactTrainer, "is_deepspeed_enabled", True, raising=False)
    monkeypatch.setattr("transformers.Trainer.__init__", lambda self, **named: setattr(self, "args", named["args"]))
    with pytest.raises(ConfigError, match="on_bad_loss: skip: cannot be used with DeepSpeed"):
        ftk_run(**FULL, dataset=rows_file(tmp_path), on_bad_loss="skip")
