"""Whether prompts may be shared. Reference: logits of the same pairs, each text by itself, on models of many makes."""

from contextlib import nullcontext
from importlib.resources import files
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ftk_training.collator import Collator
from ftk_training.pairs import PairCollator, pair_inputs, pair_targets
from ftk_training.sharing import additive_of, saved_share, why_not
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.models.auto import CONFIG_MAPPING

SMALL = {
    "vocab_size": 4096, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0, "use_cache": False,
}  # fmt: skip
HEADS = {"falcon_h1": {"mamba_d_ssm": 32, "mamba_n_heads": 2, "mamba_d_head": 16, "mamba_d_state": 16}}
"""Sizes of what a family has beside attention, which is slow in Python."""
PROMPT, SHORT, LONG = np.arange(10, 30), np.arange(40, 45), np.arange(50, 57)


def pair(*media):
    ids = [np.concatenate((PROMPT, answer)) for answer in (SHORT, LONG)]
    made = {f"{side}_input_ids": one for side, one in zip(("chosen", "rejected"), ids, strict=True)}
    made |= {f"{side}_labels": one for side, one in zip(("chosen", "rejected"), ids, strict=True)}
    return made | ({"chosen_media": media, "rejected_media": media} if media else {})


class Rows(list):
    @property
    def lengths_N(self):
        return np.array([len(row["rejected_input_ids"]) for row in self])


@pytest.fixture
def trainer():
    tokenizer = AutoTokenizer.from_pretrained(files("ftk_tiny") / "tiny_chat")
    return SimpleNamespace(
        run=SimpleNamespace(tokenizer=tokenizer), data_collator=Collator(), train_dataset=Rows([pair()] * 4),
        eval_dataset=None, accelerator=SimpleNamespace(autocast=nullcontext), _prepare_inputs=dict,
    )  # fmt: skip


def tiny(family, attention="sdpa", **more):
    torch.manual_seed(0)
    config = CONFIG_MAPPING[family](**{**SMALL, **HEADS.get(family, {}), **more}, attn_implementation=attention)
    return AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize(
    ("family", "attention"),
    [("llama", "sdpa"), ("llama", "eager"), ("gemma3_text", "sdpa"), ("opt", "sdpa"), ("falcon_h1", "sdpa")],
)
@torch.no_grad()
def test_what_is_found_is_what_a_longer_pair_shows(trainer, family, attention):
    model = tiny(family, attention).eval()
    found = why_not(trainer, [model])
    made = []
    for shared in (False, True):
        batch = PairCollator(Collator(), shared=shared)([pair()])
        targets = pair_targets(batch)
        try:
            logits = model(**pair_inputs(batch, additive=additive_of(model))).logits
        except (RuntimeError, ValueError, IndexError, TypeError):
            assert found.startswith("the model cannot")
            return
        made.append(logits[targets.rows_N, targets.positions_N])
    equal = torch.allclose(*made, rtol=1e-4, atol=1e-4)
    assert equal is (not found), found


def test_the_probe_leaves_a_model_as_it_was(trainer):
    model = tiny("llama").train()
    before = torch.get_rng_state()
    assert why_not(trainer, [model]) == ""
    assert model.training
    assert torch.equal(torch.get_rng_state(), before)


def test_attention_that_does_not_reach_back_far_enough_is_told(trainer):
    assert why_not(trainer, [tiny("mistral", sliding_window=16)]) == (
        "attention reaches 16 tokens back and a text has 27"
    )


def test_attention_without_masks_of_its_own_is_told(trainer):
    model = tiny("llama")
    model.config._attn_implementation = "flash_attention_2"
    assert why_not(trainer, [model]) == "attention flash_attention_2 takes no mask of its own"


def test_what_would_save_little_is_left_unless_asked_for(trainer):
    model = tiny("llama")
    trainer.train_dataset = Rows([pair("a.png")])
    assert why_not(trainer, [model]) == "it would save 0% of the tokens"
    assert why_not(trainer, [model], pays=False) == ""
    trainer.data_collator = Collator(flat=True)
    assert why_not(trainer, [model]) == "padding_free puts all texts into one row"


def test_the_share_that_is_saved_is_that_of_common_beginnings():
    assert saved_share(Rows([pair()])) == pytest.approx(20 / (25 + 27))
    assert saved_share({"one": [{"pairs": [pair(), pair("a.png")]}]}) == pytest.approx(20 / (2 * 52))
