"""Options, collator, and what one undisturbed run computes.

References: the installed transformers for names and defaults; for losses and weights a naive loop in plain PyTorch,
written here, over the same rows; for packing each document on its own.
"""

import dataclasses
import functools
import json
import math
import os
import pty
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ftk import ConfigError, DataError
from ftk.options import fields_of
from ftk.registry import Registry
from ftk.run import Run
from ftk.testing.runs import plan_in
from ftk.types import Media
from ftk_training import TrainingOptions, checkpoints, fitting
from ftk_training.arguments import make_arguments, wants_checkpointing
from ftk_training.collator import Collator
from ftk_training.counting import num_tokens
from ftk_training.order import EpochOrder
from ftk_training.replaced import REPLACED
from transformers import AutoModelForCausalLM, TrainingArguments

KERNELS = {"output_dir", "overwrite_output_dir", "resume_from_checkpoint", "seed", "report_to"}
OF_PLUGINS = {"neftune_noise_alpha", "use_liger_kernel", "liger_kernel_config"}
"""Owned by ftk-neftune and ftk-liger."""
NEWER = {"activation_checkpointing", "activation_checkpointing_kwargs"}
OTHER_DEFAULTS = {
    "do_train", "gradient_checkpointing", "include_for_metrics", "logging_nan_inf_filter", "logging_steps",
}  # fmt: skip
"""Each with its reason in the README."""
FULL = {"finetuning_type": "full", "template": "chatml", "max_steps": 5, "disable_shuffling": True}


def uneven_rows(folder, count=12):
    path = folder / "uneven.json"
    rows = [{"instruction": "say " * (1 + 5 * (n % 3)), "output": "well then " * (1 + n % 4)} for n in range(count)]
    path.write_text(json.dumps(rows))
    return str(path)


def losses_of(folder):
    lines = [json.loads(line) for line in (folder / "trainer_log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


# Options


def test_every_training_argument_is_an_option():
    known = {field.name for field in dataclasses.fields(TrainingArguments) if field.init}
    missing = known - KERNELS - OF_PLUGINS - set(fields_of(TrainingOptions))
    assert not missing, f"add to ftk_training/options.py: {sorted(missing)}"
    gone = {replaced.key for replaced in REPLACED} & known
    assert not gone, f"no longer gone: {sorted(gone)}"


def test_defaults_are_those_of_transformers():
    theirs = TrainingArguments(output_dir="unused")
    raw = {field.name: field.default for field in dataclasses.fields(TrainingArguments)}
    for key, option in fields_of(TrainingOptions).items():
        if key in raw and key not in OTHER_DEFAULTS | NEWER:
            assert option.default == raw[key] or option.default == getattr(theirs, key), key


def test_declaring_imports_nothing_but_what_declares():
    code = "import sys, ftk; before = {*sys.modules}; import ftk_training; print(*sorted({*sys.modules} - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    own = ("checks", "options", "prediction", "replaced")
    assert done.stdout.split() == ["ftk_training", *(f"ftk_training.{name}" for name in own)]


@pytest.mark.parametrize("old", REPLACED, ids=lambda old: old.key)
def test_an_old_key_is_translated_and_the_user_is_told(tmp_path, old):
    value = next(iter(old.values), 0.1 if old.by == "warmup_steps" else "no")
    if old.by in ("per_device_train_batch_size", "per_device_eval_batch_size"):
        value = 2  # what the test kit sets itself
    if old.by == "use_cpu":
        value = True
    plan = plan_in(tmp_path, **{old.key: value})
    assert [note for note in plan.notes if f"{old.key}:" in note]
    if old.by:
        assert plan.value(old.by) == old.values.get(value, value)


def arguments_of(folder, **settings):
    return make_arguments(Run(plan_in(folder, **settings)))


def test_options_reach_transformers(tmp_path):
    given = {
        "warmup_ratio": 0.1,
        "optim_args": "a=1",
        "lr_scheduler_kwargs": {"num_cycles": 2},
        "seed": 7,
        "bf16": True,
    }
    arguments = arguments_of(tmp_path, **given, disable_shuffling=True, save_strategy="no")
    assert (arguments.warmup_steps, arguments.optim_args, arguments.seed, arguments.bf16) == (0.1, "a=1", 7, True)
    assert arguments.lr_scheduler_kwargs == {"num_cycles": 2}
    assert (arguments.train_sampling_strategy, arguments.save_strategy, arguments.report_to) == ("sequential", "no", [])


def test_activations_are_recomputed_as_asked_and_on_accelerators(tmp_path, monkeypatch):
    def checkpointing(**settings):
        return bool(arguments_of(tmp_path, **settings).gradient_checkpointing)

    assert not checkpointing()
    assert checkpointing(gradient_checkpointing=True)
    assert checkpointing(activation_checkpointing=True)
    monkeypatch.setattr("torch.accelerator.is_available", lambda: True)
    assert not checkpointing(), "the test kit says use_cpu"
    assert wants_checkpointing(TrainingOptions())
    assert not wants_checkpointing(TrainingOptions(disable_gradient_checkpointing=True))
    assert not wants_checkpointing(TrainingOptions(gradient_checkpointing=False))


def test_what_transformers_refuses_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match=r"test\.yaml: .*dataloader_prefetch_factor") as caught:
        arguments_of(tmp_path, dataloader_prefetch_factor=2)
    assert "\n" not in str(caught.value)


def test_a_run_trains_unless_it_is_to_predict_and_nothing_else_is_said(tmp_path):
    for given, trains in (({}, True), ({"do_predict": True}, False), ({"do_predict": True, "do_train": True}, True)):
        assert plan_in(tmp_path, **given).value("do_train") is trains


# Collator


def row(length, trained=3, **more):
    ids = np.arange(1, length + 1, dtype=np.int32)
    labels = np.where(np.arange(length) >= length - trained, ids, -100)
    return {"input_ids": ids, "labels": labels, **more}


def test_rows_are_padded_on_the_right():
    batch = Collator(pad_id=9)([row(3, 2), row(5, 1)])
    assert batch["input_ids"].tolist() == [[1, 2, 3, 9, 9], [1, 2, 3, 4, 5]]
    assert batch["labels"].tolist() == [[-100, 2, 3, -100, -100], [-100, -100, -100, -100, 5]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert all(tensor.dtype == torch.int64 for tensor in batch.values())
    assert Collator(multiple=8)([row(3), row(9)])["input_ids"].shape == (2, 16)


def test_kept_logits_are_the_positions_before_trained_tokens():
    batch = Collator(kept_logits=True)([row(3, 2), row(5, 1)])
    assert batch["logits_to_keep"].tolist() == [0, 1, 3]
    assert batch["shift_labels"].tolist() == [[2, 3, -100], [-100, -100, 5]]


def test_weights_are_padded_and_follow_the_kept_positions():
    rows = [row(3, 2, loss_weights=np.array([1, 0.5, 2], np.float32)), row(5, 1)]
    batch = Collator()(rows)
    assert batch["loss_weights"].tolist() == [[1, 0.5, 2, 1, 1], [1, 1, 1, 1, 1]]
    assert batch["loss_weights"].dtype == torch.float32
    kept = Collator(kept_logits=True)(rows)
    assert kept["logits_to_keep"].tolist() == [0, 1, 3]
    assert kept["loss_weights"].tolist() == [[0.5, 2, 1], [1, 1, 1]]
    assert "loss_weights" not in Collator()([row(3)])


class Lengths:
    """An encoder that tells what it was given, and that its tokens (5) are not to be trained."""

    def encode(self, batch, media):
        labels = batch["labels"].masked_fill(batch["labels"] == 5, -100)
        return {"shown": torch.tensor([len(one) for one in media]), "labels": labels}


def test_media_of_rows_go_to_the_encoder_whose_labels_count():
    picture = object()
    rows = [row(5, 3, media=(picture, picture)), row(3, 2)]
    batch = Collator(media=Lengths(), kept_logits=True)(rows)
    assert batch["shown"].tolist() == [2, 0]
    assert batch["labels"].tolist() == [[-100, -100, 3, 4, -100], [-100, 2, 3, -100, -100]]
    assert batch["shift_labels"].tolist() == [[-100, 3, 4], [2, 3, -100]]


KINDS = ("image", "video", "audio")


class Kinds:
    """An encoder that tells the kinds that each row shows."""

    def encode(self, batch, media):
        return {"kinds": [[one.kind for one in shows] for shows in media]}


def test_a_batch_gets_a_blank_of_each_kind_that_it_does_not_show():
    """Towers are gone through once for each kind, so every process needs one of each."""
    blanks = {kind: {"input_ids": [7, number], "media": (Media(kind, "blank"),)} for number, kind in enumerate(KINDS)}
    collate = Collator(media=Kinds(), blanks=blanks)
    shown = collate([row(4), row(3, media=(Media("video", "a"), Media("video", "b")))])
    assert shown["kinds"] == [["image", "audio"], ["video", "video"]]
    assert shown["input_ids"].tolist() == [[1, 2, 3, 4, 7, 0, 7, 2], [1, 2, 3, 0, 0, 0, 0, 0]]
    assert shown["labels"][0].tolist() == [-100, 2, 3, 4, -100, -100, -100, -100]
    assert shown["attention_mask"].sum(dim=1).tolist() == [4, 3]
    packed = collate([{**row(4), "position_ids": np.arange(4)}])
    assert packed["kinds"] == [["image", "video", "audio"]]
    assert packed["position_ids"].tolist() == [[0, 1, 2, 3, 0, 1, 2, 3, 4, 5]]
    assert packed["labels"][0, 4:].tolist() == [-100] * 6
    assert collate([row(3, media=tuple(Media(kind, "a") for kind in KINDS))])["input_ids"].tolist() == [[1, 2, 3]]


def test_tokens_are_counted_without_the_masks_of_pictures_and_sounds():
    mask = torch.tensor([[1, 1, 0]])
    counted = {"input_ids": torch.zeros(1, 3), "attention_mask": mask, "feature_attention_mask": torch.ones(1, 900)}
    assert num_tokens({**counted, "pixel_attention_mask": torch.ones(2, 8, 8)}) == 2
    assert num_tokens({"input_ids": torch.zeros(1, 3), "pixel_attention_mask": torch.ones(2, 8)}) == 3
    assert num_tokens({f"{side}_{name}": one for side in ("a", "b") for name, one in counted.items()}) == 4


def test_media_that_nothing_reads_are_refused():
    with pytest.raises(DataError, match="no installed plugin reads them for this model"):
        Collator()([row(5, 3, media=(object(),))])


@pytest.fixture(scope="module")
def model():
    from transformers import LlamaConfig

    torch.manual_seed(0)
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    return AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=50, **small)).eval()


@pytest.mark.parametrize("kept", [False, True], ids=["all logits", "kept logits"])
def test_packed_documents_do_not_see_each_other(model, kept):
    """The loss of a packed, padded batch is that of its documents, each alone."""
    documents = [row(7, 5), row(4, 4), row(9, 2)]
    joined = {name: np.concatenate([one[name] for one in documents[:2]]) for name in ("input_ids", "labels")}
    packed = [{**joined, "position_ids": np.r_[0:7, 0:4]}, {**documents[2], "position_ids": np.arange(9)}]
    batch = Collator(kept_logits=kept)(packed)
    assert "attention_mask" not in batch
    model.config.use_cache = False
    with torch.no_grad():
        together = model(**batch, num_items_in_batch=1).loss
        alone = sum(model(**Collator()([one]), num_items_in_batch=1).loss for one in documents)
    torch.testing.assert_close(together, alone)


def test_kept_logits_give_the_same_loss_and_gradients(model):
    rows = [row(9, 3), row(6, 1), row(12, 2)]
    found = []
    for kept in (False, True):
        model.zero_grad()
        loss = model(**Collator(kept_logits=kept)(rows)).loss
        loss.backward()
        found.append([loss.detach(), *(parameter.grad.clone() for parameter in model.parameters())])
    for wanted, got in zip(*found, strict=True):
        torch.testing.assert_close(got, wanted)


def test_media_on_several_gpus_of_one_process_are_refused():
    """transformers would use DataParallel, which splits every tensor by its first dimension."""
    run = SimpleNamespace(media=Lengths(), plan=SimpleNamespace(config="run.yaml"))
    with pytest.raises(ConfigError, match=r"run\.yaml: a batch with media cannot be split .* \(torchrun\)"):
        fitting._collator(SimpleNamespace(run=run, args=SimpleNamespace(n_gpu=2)), None)


# Order


def test_the_order_is_a_permutation_that_depends_on_seed_and_epoch_alone():
    order = EpochOrder(20, seed=1)
    first = list(order)
    order.set_epoch(1)
    second = list(order)
    order.set_epoch(0)
    assert sorted(first) == sorted(second) == list(range(20))
    assert list(order) == first == list(EpochOrder(20, seed=1)) != second
    assert list(EpochOrder(20, seed=2)) != first


def test_grouping_by_length_wastes_less_padding():
    lengths = [1 + 7 * n % 50 for n in range(64)]

    def padding(order):
        batches = [[lengths[index] for index in order[start : start + 4]] for start in range(0, 64, 4)]
        return sum(4 * max(batch) - sum(batch) for batch in batches)

    grouped = list(EpochOrder(64, 0, lengths=lengths, batch_size=4))
    assert sorted(grouped) == list(range(64))
    assert padding(grouped) < 0.5 * padding(list(EpochOrder(64, 0)))


# Training


def naive_run(plan, batches, rate=1e-3, decay=0.0):
    """Cross-entropy summed over the trained tokens of all batches of a step, divided by their number; AdamW, linear."""
    model = AutoModelForCausalLM.from_pretrained(Run(plan).model_path)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=decay)
    losses = []
    for step, micro_batches in enumerate(batches):
        optimizer.param_groups[0]["lr"] = rate * (1 - step / len(batches))
        total, count = torch.zeros(()), 0
        for row in (row for rows in micro_batches for row in rows):
            ids = torch.tensor(np.asarray(row["input_ids"], dtype=np.int64))[None]
            labels = torch.tensor(np.asarray(row["labels"], dtype=np.int64))
            logprobs = model(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
            for position in range(len(labels) - 1):
                if labels[position + 1] != -100:
                    total = total - logprobs[position, labels[position + 1]]
                    count += 1
        loss = total / count
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses, model.state_dict()


@pytest.mark.parametrize(("batch", "accumulated"), [(2, 1), (1, 2), (2, 2)])
def test_training_is_what_a_naive_loop_does(ftk_run, tmp_path, batch, accumulated):
    settings = {
        **FULL,
        "per_device_train_batch_size": batch,
        "gradient_accumulation_steps": accumulated,
        "max_steps": 3,
    }
    finished = ftk_run(**settings, dataset=uneven_rows(tmp_path))
    rows = Run(finished.plan).rows("train")
    size = batch * accumulated
    batches = [[[rows[n] for n in range(start, start + size)]] for start in range(0, 3 * size, size)]
    losses, weights = naive_run(finished.plan, batches)
    assert losses_of(finished.folder) == pytest.approx(losses, rel=1e-5)
    trained = AutoModelForCausalLM.from_pretrained(finished.folder).state_dict()
    for name, weight in weights.items():
        torch.testing.assert_close(trained[name], weight, rtol=1e-3, atol=2e-5)


def weighty(rows, seed=0):
    """The rows with weights for some of them, zero among them."""
    chosen = np.random.default_rng(seed)
    return [
        {**row, "loss_weights": chosen.choice([0.0, 0.25, 1.0, 3.0], len(row["labels"])).astype(np.float32)}
        if number % 3
        else row
        for number, row in enumerate(rows)
    ]


@pytest.mark.parametrize(
    ("family", "packing", "batch", "accumulated"),
    [
        ("llama", False, 2, 3),
        ("llama", True, 1, 2),
        ("mamba", False, 2, 3),
        ("mixtral?output_router_logits=true", False, 4, 1),
    ],
)
def test_weights_multiply_the_loss_of_tokens_and_not_their_number(
    ftk_run, tmp_path, monkeypatch, family, packing, batch, accumulated
):
    """Against a loop over tokens: the sum of weight times surprise in all batches of a step, divided by how many tokens
    are trained. Mixtral adds what balances its experts; Mamba cannot leave out logits."""
    settings = {
        **FULL, "model_name_or_path": f"ftk://random/{family}", "packing": packing, "max_steps": 1, "cutoff_len": 64,
        "per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulated,
        "dataset": uneven_rows(tmp_path),
    }  # fmt: skip
    run = Run(plan_in(tmp_path, **settings))
    rows = weighty(list(run.rows("train")))
    monkeypatch.setattr(Run, "rows", lambda self, split: rows)
    model = AutoModelForCausalLM.from_pretrained(run.model_path)
    model.config.use_cache = False

    def naive(row):
        ids = torch.tensor(np.asarray(row["input_ids"], np.int64))[None]
        more = {"position_ids": torch.tensor(row["position_ids"])[None]} if "position_ids" in row else {}
        with torch.no_grad():
            logprobs = model(input_ids=ids, **more).logits[0].log_softmax(-1)
        weights = row.get("loss_weights", np.ones(len(row["labels"])))
        total, count = 0.0, 0
        for position, label in enumerate(row["labels"]):
            if label != -100 and position:
                total -= float(weights[position]) * float(logprobs[position - 1, label])
                count += 1
        return np.array([total, count])

    total, count = sum(naive(row) for row in rows[: batch * accumulated])
    balance = 0.0
    if "mixtral" in family:
        with torch.no_grad():
            inputs = Collator()(rows[:batch])
            inputs.pop("loss_weights")
            output = model(**inputs)
        balance = float(
            output.loss
            - torch.nn.functional.cross_entropy(output.logits[:, :-1].flatten(0, 1), inputs["labels"][:, 1:].flatten())
        )
        assert balance > 0.001
    finished = ftk_run(**settings)
    assert losses_of(finished.folder)[0] == pytest.approx(total / count + balance, rel=1e-5)


def test_weights_of_an_evaluation_are_exact_whatever_the_batch_size(ftk_run, tmp_path, monkeypatch):
    settings = {**FULL, "dataset": uneven_rows(tmp_path), "do_train": False, "do_eval": True, "compute_accuracy": True}
    settings["eval_dataset"] = settings["dataset"]
    rows = weighty(list(Run(plan_in(tmp_path, **settings)).rows("eval")))
    monkeypatch.setattr(Run, "rows", lambda self, split: rows)
    found = []
    for size in (1, 5):
        more = {"per_device_eval_batch_size": size, "output_dir": str(tmp_path / str(size))}
        metrics = ftk_run(**settings, **more).metrics
        found.append([metrics["eval_loss"], metrics["eval_accuracy"]])
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_weights_of_one_change_nothing_and_weights_exclude_smoothing(ftk_run, tmp_path, monkeypatch):
    settings = {**FULL, "dataset": uneven_rows(tmp_path)}
    wanted = losses_of(ftk_run(**settings, output_dir=str(tmp_path / "plain")).folder)
    rows = Run(plan_in(tmp_path, **settings)).rows("train")
    ones = [{**row, "loss_weights": np.ones(len(row["labels"]), np.float32)} for row in rows]
    monkeypatch.setattr(Run, "rows", lambda self, split: ones)
    assert losses_of(ftk_run(**settings).folder) == pytest.approx(wanted, rel=1e-6)
    with pytest.raises(ConfigError, match="label_smoothing_factor: cannot be used with rows that carry weights"):
        ftk_run(**settings, label_smoothing_factor=0.1, output_dir=str(tmp_path / "smooth"))


@pytest.mark.parametrize("told", [True, False])
def test_gradient_accumulation_equals_a_big_batch(ftk_run, tmp_path, monkeypatch, told):
    """Some models (Gemma 3n, Gemma 4) are not told how many tokens a step has; their own loss is a mean of a batch."""
    monkeypatch.setattr("transformers.LlamaForCausalLM.accepts_loss_kwargs", told, raising=False)

    def losses(batch, accumulated):
        sizes = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulated, "max_steps": 3}
        out = str(tmp_path / f"{batch}-{accumulated}")
        return losses_of(ftk_run(**{**FULL, **sizes}, dataset=uneven_rows(tmp_path), output_dir=out).folder)

    assert losses(1, 4) == pytest.approx(losses(4, 1), rel=1e-5)


def test_recomputing_activations_changes_no_loss(ftk_run, tmp_path):
    """Reentrant, LLaMA-Factory's default, needs an input that wants gradients when the embeddings are frozen."""
    settings = {**FULL, "finetuning_type": "lora", "dataset": uneven_rows(tmp_path)}
    wanted = losses_of(ftk_run(**settings).folder)
    for reentrant in (True, False):
        more = {"gradient_checkpointing": True, "use_reentrant_gc": reentrant, "overwrite_output_dir": True}
        assert losses_of(ftk_run(**settings, **more).folder) == pytest.approx(wanted, rel=1e-6)


def test_evaluating_more_often_does_not_change_the_training(ftk_run, tmp_path):
    settings = {**FULL, "dataset": uneven_rows(tmp_path), "val_size": 4, "disable_shuffling": False}
    settings["model_name_or_path"] = "ftk://random/llama?attention_dropout=0.1"
    seldom = losses_of(ftk_run(**settings).folder)
    often = ftk_run(**settings, eval_strategy="steps", eval_steps=1, overwrite_output_dir=True)
    assert losses_of(often.folder) == seldom


def test_the_evaluation_loss_is_the_mean_over_tokens_whatever_the_batch_size(ftk_run, tmp_path):
    found = []
    for size in (1, 3):
        more = {"val_size": 5, "do_eval": True, "per_device_eval_batch_size": size, "compute_accuracy": True}
        metrics = ftk_run(**FULL, **more, dataset=uneven_rows(tmp_path), output_dir=str(tmp_path / str(size))).metrics
        found.append([metrics["eval_loss"], metrics["eval_accuracy"], metrics["eval_perplexity"]])
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    assert found[0][2] == pytest.approx(math.exp(found[0][0]))
    assert 0 <= found[0][1] <= 1


def test_do_eval_without_do_train_only_evaluates(ftk_run, tmp_path):
    rows = uneven_rows(tmp_path)
    finished = ftk_run(**FULL, do_train=False, do_eval=True, eval_dataset=rows, dataset=rows)
    assert finished.metrics["eval_loss"] == pytest.approx(7, abs=1.5)  # random weights: about log of the vocabulary
    assert not (finished.folder / "model.safetensors").exists()
    assert finished.record["result"] == "none"


def test_early_stopping_stops(ftk_run, tmp_path):
    """At this rate the loss only gets worse."""
    more = {"val_size": 4, "eval_strategy": "steps", "eval_steps": 1, "early_stopping_steps": 2, "learning_rate": 1.0}
    more |= {"max_steps": 20, "metric_for_best_model": "loss", "lr_scheduler_type": "constant"}
    finished = ftk_run(**{**FULL, **more}, dataset=uneven_rows(tmp_path))
    assert finished.metrics["train_steps"] < 10


# What a run leaves and says


def test_the_run_directory(ftk_run, tmp_path):
    finished = ftk_run(**FULL, dataset=uneven_rows(tmp_path), val_size=2, do_eval=True, plot_loss=True)
    names = {path.name for path in finished.folder.iterdir()}
    assert names >= {
        "README.md", "all_results.json", "chat_template.jinja", "config.json", "data_report.json", "eval_results.json",
        "model.safetensors", "run.json", "tokenizer.json", "train_results.json", "trainer_log.jsonl",
        "trainer_state.json", "training_loss.png",
    }  # fmt: skip
    assert "training_args.bin" not in names, "a pickle, which nobody should have to load"
    assert (finished.folder / "training_loss.png").read_bytes().startswith(b"\x89PNG")
    lines = [json.loads(line) for line in (finished.folder / "trainer_log.jsonl").read_text().splitlines()]
    wanted = {
        "step",
        "total_steps",
        "loss",
        "grad_norm",
        "learning_rate",
        "epoch",
        "num_tokens",
        "num_trained_tokens",
        "tokens_per_second",
        "seconds",
    }
    assert lines[0].keys() == wanted
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 5]
    assert json.loads((finished.folder / "config.json").read_text()).get("use_cache", True) is True
    card = (finished.folder / "README.md").read_text()
    assert f"{lines[0]['loss']:.4f} at first, {lines[4]['loss']:.4f} at last" in card
    assert finished.record["metrics"]["train_loss"] == pytest.approx(np.mean([line["loss"] for line in lines[:5]]))


def test_saving_an_adapter_asks_no_hub(ftk_run, tmp_path, monkeypatch):
    """peft does, to learn whether the vocabulary was resized, when the base model's name is no folder."""
    from peft.utils import save_and_load

    def ask(*arguments, **named):
        raise AssertionError("asked the hub")

    monkeypatch.setattr(save_and_load, "check_file_exists_on_hf_hub", ask)
    original = checkpoints.save_weights

    def as_from_the_hub(trainer, *arguments):
        trainer.model.peft_config["default"].base_model_name_or_path = "somebody/something"
        original(trainer, *arguments)

    monkeypatch.setattr(checkpoints, "save_weights", as_from_the_hub)
    finished = ftk_run(template="chatml", finetuning_type="lora", dataset=uneven_rows(tmp_path))
    assert (finished.folder / "adapter_model.safetensors").exists()
    monkeypatch.setattr(checkpoints, "save_weights", original)


def test_tokens_seen_may_be_logged_too(ftk_run, tmp_path):
    finished = ftk_run(**FULL, dataset=uneven_rows(tmp_path), include_num_input_tokens_seen=True)
    assert len(losses_of(finished.folder)) == 5


def test_overwriting_removes_what_a_run_left(ftk_run, tmp_path):
    """Also a run that was continued, whose log was there before."""
    from ftk.rundir import prepare

    settings = {**FULL, "dataset": uneven_rows(tmp_path), "save_strategy": "steps", "save_steps": 2}
    folder = ftk_run(**settings).folder
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**record, "status": "running"}))
    (folder / "mine.txt").write_text("not ours")
    ftk_run(**settings)
    prepare(plan_in(tmp_path, **settings, overwrite_output_dir=True), folder)
    left = {path.name for path in folder.iterdir()}
    assert left - {"data_report.json"} == {"mine.txt"}


def test_nothing_is_said_twice(ftk_run, tmp_path, capfd):
    ftk_run(**FULL, dataset=uneven_rows(tmp_path))
    said, errors = capfd.readouterr()
    assert errors == ""
    lines = said.splitlines()
    assert [line.split("  ")[0] for line in lines[:5]] == [f"step {n}/5" for n in range(1, 6)]
    assert len(lines) == 8
    assert lines[-1] == f"talk to it: ftk chat {tmp_path / 'out'}"


def test_a_terminal_gets_a_progress_bar(tmp_path):
    code = (
        "import sys, pathlib; from ftk.testing.runs import run_in; "
        f"run_in(pathlib.Path({str(tmp_path)!r}), finetuning_type='full', template='chatml', disable_tqdm=False)"
    )
    ours, theirs = pty.openpty()
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=theirs, timeout=120)
    os.close(theirs)
    said = os.read(ours, 100_000).decode()
    os.close(ours)
    assert done.returncode == 0, said
    assert "2/2" in said
    assert "loss" in said
    assert b"step 1/2" not in done.stdout


def test_observers_hear_of_steps_and_checkpoints(ftk_run, tmp_path, fake_plugin):
    fake_plugin(
        "listener",
        "import ftk, pathlib\n"
        "@ftk.hookimpl\n"
        "def ftk_trackers():\n"
        "    yield ftk.Tracker('listener', target='ftk_listener:start', summary='Writes down what it hears')\n"
        "class start:\n"
        "    def __init__(self, run): self.path = run.output_dir / 'heard'\n"
        "    def log(self, step, metrics): self.path.open('a').write(f'{step} {sorted(metrics)[0]}\\n')\n"
        "    def close(self, error): pass\n"
        "@ftk.hookimpl\n"
        "def ftk_checkpoint_saved(run, step, path):\n"
        "    (run.output_dir / 'heard').open('a').write(f'{step} {path.name}\\n')\n",
    )
    more = {"report_to": "listener", "save_strategy": "steps", "save_steps": 2, "max_steps": 2}
    finished = ftk_run(**{**FULL, **more}, dataset=uneven_rows(tmp_path))
    assert (finished.folder / "heard").read_text().splitlines() == ["1 epoch", "2 epoch", "2 checkpoint-2"]


# Importing


def test_imports_hide_packages_and_bring_them_back():
    code = (
        "import sys\n"
        "from ftk_training.quick_imports import HIDDEN, quick_imports\n"
        "with quick_imports():\n"
        "    from transformers import Trainer\n"
        "    import peft\n"
        "assert not {'bitsandbytes', 'datasets', 'pandas'} & set(sys.modules), 'imported'\n"
        "from transformers.utils import is_bitsandbytes_available\n"
        "from peft.import_utils import is_bnb_available\n"
        "import importlib.util\n"
        "there = importlib.util.find_spec('bitsandbytes') is not None\n"
        "assert is_bnb_available() == is_bitsandbytes_available() == there\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_package_that_transformers_was_told_of_stays_visible(monkeypatch):
    """Its modules import it without asking again, which would fail."""
    from ftk_training import quick_imports
    from transformers.utils import import_utils

    monkeypatch.delitem(sys.modules, "sklearn", raising=False)
    for told in (False, True):
        asked = functools.lru_cache(lambda told=told: told)
        asked()
        monkeypatch.setattr(import_utils, "is_sklearn_available", asked)
        with quick_imports.quick_imports():
            assert ("sklearn" in sys.modules) is not told
        assert "sklearn" not in sys.modules


def test_the_options_belong_to_this_plugin():
    registry = Registry.discover()
    assert registry.owner_of(registry.options["learning_rate"]).distribution == "ftk-training"


def test_a_loss_of_a_stage_is_summed_over_items_as_the_models_own_is(ftk_run, tmp_path, monkeypatch):
    """The very same loss, written as a stage would write one, with a metric beside it."""

    def loss(model, batch):
        labels = batch.pop("labels")[:, 1:]
        logprobs = model(**batch).logits[:, :-1].log_softmax(-1)
        surprise = -logprobs.gather(-1, labels.clamp(min=0)[..., None])[..., 0] * (labels != -100)
        batch["labels"] = torch.nn.functional.pad(labels, (1, 0), value=-100)
        return surprise.sum(), {"twos": 2.0 * (labels != -100).sum()}

    def count(batch):
        return (batch["labels"][:, 1:] != -100).sum()

    more = {"gradient_accumulation_steps": 3, "val_size": 3, "do_eval": True, "dataset": uneven_rows(tmp_path)}
    wanted = ftk_run(**FULL, **more, output_dir=str(tmp_path / "wanted"))
    monkeypatch.setattr("ftk_sft.training.train", lambda run: fitting.fit(run, loss=loss, count=count))
    got = ftk_run(**FULL, **more)
    assert losses_of(got.folder) == pytest.approx(losses_of(wanted.folder), rel=1e-5)
    assert got.metrics["eval_loss"] == pytest.approx(wanted.metrics["eval_loss"], rel=1e-5)
    assert got.metrics["eval_twos"] == 2
    assert json.loads((got.folder / "trainer_log.jsonl").read_text().splitlines()[0])["twos"] == 2
