"""Texts that share a row. Reference: the same model's logits of a text by itself."""

import json
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ftk import ConfigError
from ftk.run import Run
from ftk.testing.runs import plan_in, run_in
from ftk_training.collator import Collator
from ftk_training.neighbours import refuse_leaks
from transformers import AutoModelForCausalLM, AutoTokenizer

APART = ["llama", "gemma3_text", "deepseek_v3", "deepseek_v4", "mixtral", "gpt2", "lfm2"]
LEAKING = [
    *("mamba", "falcon_h1", "qwen3_next", "qwen3_5_text", "minimax", "jamba", "recurrent_gemma", "rwkv"),
    'lfm2?layer_types=["conv","full_attention"]',
    *("bloom", "opt", "falcon", "gpt_oss"),  # attention that does not hear of position_ids
]


@pytest.fixture
def trainer(request, tmp_path):
    """What the probe asks of a trainer with packed rows; ``request.param`` is a model."""
    plan = plan_in(
        tmp_path, stage="sft", model_name_or_path=f"ftk://random/{request.param}", packing=True, template="chatml"
    )
    run = Run(plan)
    model = AutoModelForCausalLM.from_pretrained(run.model_path)
    for config in (model.config, model.config.get_text_config(decoder=True)):
        config.use_cache = False  # as ExactTrainer has it
    tokenizer = AutoTokenizer.from_pretrained(run.model_path)
    return SimpleNamespace(
        model=model, run=SimpleNamespace(plan=plan, tokenizer=tokenizer, value=run.value), is_fsdp_enabled=False,
        train_dataset=SimpleNamespace(packed=True), eval_dataset=None, is_deepspeed_enabled=False,
        data_collator=Collator(multiple=8, kept_logits=True), _prepare_inputs=dict,
        accelerator=SimpleNamespace(autocast=nullcontext, unwrap_model=lambda one: one),
    )  # fmt: skip


def row(*documents):
    ids = np.concatenate(documents)
    made = {"input_ids": ids, "labels": ids}
    return made | ({"position_ids": np.tile(np.arange(6), len(documents))} if len(documents) > 1 else {})


@torch.no_grad()
def stays(model, collator):
    """Whether a text has the logits that it has alone, behind another one in a batch of the collator's."""
    first, text = np.random.default_rng(0).integers(10, 200, (2, 6))
    batches = [Collator()([row(text)]), collator([row(first, text)])]
    alone, packed = (model(input_ids=one.pop("input_ids"), **one).logits[0] for one in without_labels(batches))
    return torch.allclose(packed[6:12], alone, rtol=1e-5, atol=1e-5)


def without_labels(batches):
    return [{key: value for key, value in batch.items() if key != "labels"} for batch in batches]


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("trainer", APART + LEAKING, indirect=True)
def test_models_whose_packed_texts_change_each_other_are_refused_and_no_others(trainer, flat, request):
    trainer.data_collator = Collator(flat=flat)
    apart = request.node.callspec.params["trainer"] in APART
    assert stays(trainer.model.eval(), trainer.data_collator) == apart
    said = r"packing: .* does not keep the texts of a row apart: .* by .*%\. Set packing: false"
    with nullcontext() if apart else pytest.raises(ConfigError, match=said):
        refuse_leaks(trainer)


def draws(*_):
    torch.rand(1)


@pytest.mark.parametrize("trainer", ["llama", "qwen3_5_text"], indirect=True)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_trying_finds_the_same_in_halves_with_dropout_and_leaves_no_trace(trainer, dtype):
    model = trainer.model.to(dtype)
    for module in model.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.5
    model.train()
    model.get_input_embeddings().eval()
    model.register_forward_hook(draws)
    modes, state = [module.training for module in model.modules()], torch.get_rng_state()
    weights = {name: one.clone() for name, one in model.state_dict().items()}
    with nullcontext() if model.config.model_type == "llama" else pytest.raises(ConfigError, match=r"by 3\.\d+%"):
        refuse_leaks(trainer)
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one, weights[name]) for name, one in model.state_dict().items())


@pytest.mark.parametrize("trainer", ["llama", "mamba", "minimax"], indirect=True)
@pytest.mark.parametrize("why", ["is_fsdp_enabled", "is_deepspeed_enabled", "fails"])
def test_where_nothing_can_be_tried_the_mark_of_transformers_decides(trainer, why, monkeypatch):
    def fails(*arguments, **named):
        raise RuntimeError("weights are elsewhere")

    monkeypatch.setattr(trainer.model, "forward", fails)
    if why != "fails":
        setattr(trainer, why, True)
    marked = trainer.model._is_stateful
    with pytest.raises(ConfigError, match="a state that runs on") if marked else nullcontext():
        refuse_leaks(trainer)
    assert marked == (trainer.model.config.model_type == "mamba")


@pytest.mark.parametrize("trainer", ["mamba"], indirect=True)
def test_rows_of_one_text_are_not_tried(trainer):
    trainer.train_dataset.packed = False
    refuse_leaks(trainer)
    trainer.data_collator = Collator(flat=True)
    with pytest.raises(ConfigError, match=r"padding_free: .*Take it out"):
        refuse_leaks(trainer)
    trainer.data_collator = list
    trainer.train_dataset.packed = True
    refuse_leaks(trainer)  # a stage that makes its own batches


def settings(tmp_path, **more):
    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps([{"instruction": "say it", "output": "well then"}] * 6))
    how = {"stage": "sft", "finetuning_type": "lora", "template": "chatml", "cutoff_len": 64, "max_steps": 1}
    return {"dataset": str(rows), **how, **more}


@pytest.mark.parametrize("key", ["packing", "neat_packing"])
@pytest.mark.parametrize("streaming", [False, True])
def test_a_run_says_which_key_to_turn_off(tmp_path, key, streaming):
    how = settings(tmp_path, model_name_or_path="ftk://random/qwen3_next", streaming=streaming, **{key: True})
    with pytest.raises(ConfigError, match=rf"{key}: True: Qwen3NextForCausalLM does not .*\. Set {key}: false$"):
        run_in(tmp_path, **how)


@pytest.mark.parametrize("streaming", [False, True])
def test_blocks_of_one_stream_are_no_packed_rows(tmp_path, streaming):
    """Stage pt without neat_packing: neighbours see each other on purpose."""
    texts = tmp_path / "texts.json"
    texts.write_text(json.dumps([{"text": "The rain falls on the old green house."}] * 20))
    entry = {"file_name": str(texts), "columns": {"prompt": "text"}}
    how = {"stage": "pt", "finetuning_type": "full", "dataset": [entry], "cutoff_len": 32, "max_steps": 1}
    run_in(tmp_path, **how, model_name_or_path="ftk://random/mamba", packing=True, streaming=streaming)


def test_training_is_the_same_whether_or_not_it_was_tried(tmp_path, monkeypatch):
    losses = []
    for name in ("tried", "untried"):
        how = settings(tmp_path, packing=True, lora_dropout=0.5, max_steps=3, logging_steps=1)
        finished = run_in(tmp_path, **how, output_dir=str(tmp_path / name))
        losses.append([json.loads(line)["loss"] for line in (finished.folder / "trainer_log.jsonl").open()])
        monkeypatch.setattr("ftk_training.fitting.refuse_leaks", lambda trainer: None)
    assert losses[0] == losses[1]
