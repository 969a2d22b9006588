"""Stage pt as a whole. Reference: the model's logits and the formula of cross-entropy, written out."""

import json

import pytest
import torch
from ftk.run import Run
from transformers import AutoModelForCausalLM

TEXTS = ["The rain falls on the old green house.", "Seven small boats.", "A red bird sings a song about rain."] * 4


@pytest.fixture
def settings(tmp_path):
    path = tmp_path / "texts.json"
    path.write_text(json.dumps([{"text": text} for text in TEXTS]))
    entry = {"file_name": str(path), "columns": {"prompt": "text"}}
    return {"stage": "pt", "finetuning_type": "full", "dataset": [entry], "disable_shuffling": True}


@pytest.mark.parametrize("packing", [False, True])
def test_every_token_counts(ftk_run, settings, packing):
    finished = ftk_run(**settings, packing=packing, cutoff_len=32, max_steps=1)
    loss = json.loads((finished.folder / "trainer_log.jsonl").read_text().splitlines()[0])["loss"]
    rows = Run(finished.plan).rows("train")
    model = AutoModelForCausalLM.from_pretrained(Run(finished.plan).model_path).eval()
    surprises = []
    for row in (rows[0], rows[1]):
        ids = torch.tensor([int(token) for token in row["input_ids"]])
        with torch.no_grad():
            logprobs = model(input_ids=ids[None]).logits[0].log_softmax(-1)
        surprises += [-logprobs[position, token].item() for position, token in enumerate(ids[1:])]
    assert loss == pytest.approx(sum(surprises) / len(surprises), rel=1e-5)


def test_a_template_takes_no_part(ftk_run, settings):
    finished = ftk_run(**settings, template="chatml")
    assert "template" not in finished.record["chosen"]
    assert any("template" in note for note in finished.plan.notes)


def test_evaluation_reports_perplexity(ftk_run, settings):
    metrics = ftk_run(**settings, val_size=2, do_eval=True, packing=False).metrics
    assert metrics["eval_perplexity"] == pytest.approx(2.718281828459045 ** metrics["eval_loss"])
