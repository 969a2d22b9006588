"""Batches of one row: without padding, and packed rows for flash attention.

References: the same model on each document alone; transformers' own code around flash attention, with its two kernels
written out naively; training with padding.
"""

import json
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ftk import ConfigError
from ftk_training import TrainingOptions, fitting
from ftk_training.collator import Collator
from ftk_training.one_row import is_flat
from transformers import AutoModelForCausalLM


def row(length, trained=3, **more):
    ids = np.arange(1, length + 1, dtype=np.int32)
    labels = np.where(np.arange(length) >= length - trained, ids, -100)
    return {"input_ids": ids, "labels": labels, **more}


@pytest.fixture(scope="module")
def model():
    from transformers import LlamaConfig

    torch.manual_seed(0)
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    return AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=50, num_key_value_heads=2, **small)).eval()


def test_a_flat_batch_is_its_rows_one_after_the_other():
    rows = [row(3, 2), row(5, 1, loss_weights=np.full(5, 2, np.float32)), {**row(4), "position_ids": np.r_[0:2, 0:2]}]
    batch = Collator(flat=True, multiple=8)(rows)
    assert batch["input_ids"].tolist() == [[1, 2, 3, 1, 2, 3, 4, 5, 1, 2, 3, 4, 0, 0, 0, 0]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1, 2, 3, 4, 0, 1, 0, 1, 0, 1, 2, 3]]
    assert batch["labels"].tolist() == [[-100, 2, 3, *[-100] * 4, 5, -100, 2, -100, 4, *[-100] * 4]]
    assert batch["loss_weights"].tolist() == [[1, 1, 1, 2, 2, 2, 2, 2, *[1] * 8]]
    assert "attention_mask" not in batch


def naive_varlen(q, k, v, cu_seqlens_q=None, cu_seqlens_k=None, softmax_scale=None, causal=False, **named):
    """What ``flash_attn_varlen_func`` computes: (tokens, heads, size) → the same, each stretch by itself."""
    repeat = q.shape[1] // k.shape[1]
    out = []
    for first, last in pairwise(cu_seqlens_q.tolist()):
        query, key, value = (one[first:last].transpose(0, 1) for one in (q, k, v))
        key, value = key.repeat_interleave(repeat, 0), value.repeat_interleave(repeat, 0)
        scores = query @ key.transpose(1, 2) * (softmax_scale or q.shape[-1] ** -0.5)
        unseen = torch.ones(last - first, last - first, dtype=torch.bool).triu(1)
        out.append((scores.masked_fill(unseen, -torch.inf).softmax(-1) @ value).transpose(0, 1))
    return torch.cat(out)


def naive_flash(q, k, v, softmax_scale=None, causal=False, **named):
    edges = torch.arange(q.shape[0] + 1) * q.shape[1]
    flat = naive_varlen(*(one.flatten(0, 1) for one in (q, k, v)), edges, softmax_scale=softmax_scale)
    return flat.unflatten(0, q.shape[:2])


@pytest.fixture(params=["sdpa", "eager", "flash_attention_2"])
def attending(request, model, monkeypatch):
    """A model with each way to attend. flash-attn runs on GPUs alone; its two functions are written out naively, all
    around them is transformers'."""
    from transformers import modeling_flash_attention_utils as flash

    pads = flash._pad_input, flash._unpad_input
    functions = (naive_flash, naive_varlen, None, *pads), (flash._lazy_define_process_function(naive_varlen), dict)
    monkeypatch.setattr(flash, "lazy_import_flash_attention", lambda *given, **named: functions)
    monkeypatch.setattr(model.config, "_attn_implementation", request.param)
    monkeypatch.setattr(model.config, "use_cache", False)
    return model


@torch.no_grad()
def logits_of(model, batch):
    return model(**{key: value for key, value in batch.items() if key != "labels"}).logits.flatten(0, 1)


def test_documents_of_a_batch_get_the_logits_that_they_get_alone(attending):
    """Packed rows as the trainer puts them together, and single rows without padding."""
    documents = [row(7, 5), row(4, 4), row(9, 2), row(5, 1)]
    alone = torch.cat([logits_of(attending, Collator()([one])) for one in documents])
    packed = [
        {key: np.concatenate([one[key] for one in pair]) for key in ("input_ids", "labels")}
        | {"position_ids": np.concatenate([np.arange(len(one["input_ids"])) for one in pair])}
        for pair in (documents[:2], documents[2:])
    ]
    for rows in (packed, documents):
        torch.testing.assert_close(logits_of(attending, Collator(flat=True)(rows)), alone)
    batch = Collator()(packed)
    padded = logits_of(attending, batch).unflatten(0, batch["input_ids"].shape)
    apart = torch.allclose(torch.cat([padded[0, :11], padded[1, :14]]), alone, rtol=1e-4, atol=1e-5)
    assert apart == (attending.config._attn_implementation != "flash_attention_2"), (
        "several packed rows leak with flash"
    )


@pytest.mark.parametrize("implementation", ["sdpa", "flash_attention_2"])
@pytest.mark.parametrize(("packed", "asked"), [(False, False), (False, True), (True, False)])
def test_packed_rows_are_flat_for_flash_attention_and_others_when_asked(
    implementation, packed, asked, model, monkeypatch
):
    monkeypatch.setattr(model.config, "_attn_implementation", implementation)
    trainer = SimpleNamespace(
        options=TrainingOptions(padding_free=asked), model=model, train_dataset=SimpleNamespace(packed=packed),
        eval_dataset=None, args=SimpleNamespace(n_gpu=1), accelerator=SimpleNamespace(unwrap_model=lambda one: one),
        run=SimpleNamespace(plan=SimpleNamespace(where=lambda key: f"a.yaml:1: {key}", config="a.yaml")),
    )  # fmt: skip
    flat = asked or (packed and implementation == "flash_attention_2")
    assert is_flat(trainer) == flat
    trainer.args.n_gpu = 2
    if flat:
        with pytest.raises(ConfigError, match="cannot be split over the GPUs"):
            is_flat(trainer)
    trainer.args.n_gpu = 1
    monkeypatch.setattr(trainer, "model", SimpleNamespace(config=model.config, forward=lambda input_ids: None))
    if asked:
        with pytest.raises(ConfigError, match="takes no position_ids"):
            is_flat(trainer)


def losses_of(folder):
    lines = [json.loads(line) for line in (folder / "trainer_log.jsonl").read_text().splitlines()]
    return [line[name] for line in lines for name in ("loss", "eval_loss") if name in line]


def test_training_without_padding_has_the_losses_of_training_with_it(ftk_run, tmp_path):
    rows = tmp_path / "rows.json"
    told = [{"instruction": "say " * (1 + n % 5), "output": "well then " * (1 + n % 4)} for n in range(12)]
    rows.write_text(json.dumps(told))
    how = {
        "dataset": str(rows), "finetuning_type": "full", "template": "chatml", "per_device_train_batch_size": 3,
        "max_steps": 3, "logging_steps": 1, "val_size": 4, "eval_strategy": "steps", "eval_steps": 1,
    }  # fmt: skip
    padded, flat = (
        ftk_run(output_dir=str(tmp_path / str(free)), padding_free=free, **how).folder for free in (False, True)
    )
    assert len(losses_of(padded)) == 6
    assert losses_of(padded) == pytest.approx(losses_of(flat), rel=1e-5)


def test_a_stage_that_puts_its_batches_together_itself_refuses_it():
    run = SimpleNamespace(
        options=lambda cls: TrainingOptions(padding_free=True),
        plan=SimpleNamespace(where=lambda key: f"a.yaml:1: {key}", options={}),
    )
    with pytest.raises(ConfigError, match="padding_free: has no effect, because"):
        fitting.fit(run, collate=list)
