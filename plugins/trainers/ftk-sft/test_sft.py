"""Stage sft as a whole. Reference: ``golden_losses.txt``, five losses that no refactoring may move.

When they have to move, ``python test_sft.py`` beside this file writes them anew; say why in the commit.
"""

import json
import tempfile
from pathlib import Path

import pytest
import torch
from ftk.testing import run_in
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

GOLDEN = Path(__file__).with_name("golden_losses.txt")
ROWS = [
    {"instruction": f"Repeat {word} {count} times.", "output": " ".join([word] * count)}
    for count in (1, 3, 6, 2)
    for word in ("one", "two", "three")
]
SETTINGS = {
    "stage": "sft",
    "finetuning_type": "lora",
    "lora_rank": 4,
    "template": "chatml",
    "max_steps": 5,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "learning_rate": 1e-2,
}


def tiny_model(folder):
    """A model and a tokenizer (a token for each byte) that depend on nothing outside of this file."""
    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={byte: number for number, byte in enumerate(bytes_)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>").save_pretrained(folder)
    torch.manual_seed(0)
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer.get_vocab()), **small)).save_pretrained(folder)
    return str(folder)


def losses(folder, **more):
    more = {"model_name_or_path": tiny_model(folder / "model"), "cutoff_len": 128, **more}
    dataset = folder / "rows.json"
    dataset.write_text(json.dumps(ROWS))
    run_in(folder, **{**SETTINGS, **more, "dataset": str(dataset)})
    lines = [json.loads(line) for line in (folder / "out" / "trainer_log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines]


def test_five_losses_have_not_moved(tmp_path):
    golden = [float(line) for line in GOLDEN.read_text().splitlines()]
    assert losses(tmp_path) == pytest.approx(golden, rel=1e-5)


def test_it_learns_the_answers(tmp_path):
    found = losses(tmp_path, max_steps=40, finetuning_type="full", learning_rate=3e-3)
    assert found[-1] < 0.5 * found[0]


def test_it_is_the_stage_of_a_yaml_that_names_none(ftk_run):
    assert ftk_run(template="chatml").record["chosen"]["trainer"] == ["sft"]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        GOLDEN.write_text("".join(f"{loss:.7f}\n" for loss in losses(Path(name))))
