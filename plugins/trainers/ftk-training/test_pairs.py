"""Pairs in every layout. Reference: the log-probabilities of each text by itself, in a batch of one row."""

import numpy as np
import pytest
import torch
from ftk_training.collator import Collator
from ftk_training.logprobs import target_log_probs
from ftk_training.pairs import PairCollator, branch_mask, num_pairs, pair_inputs, pair_targets, text_ends
from ftk_training.sharing import additive_of
from transformers import AutoModelForCausalLM
from transformers.models.auto import CONFIG_MAPPING

SMALL = {
    "vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0, "use_cache": False,
}  # fmt: skip


def tiny(family="llama", attention="sdpa", **more):
    torch.manual_seed(0)
    config = CONFIG_MAPPING[family](**{**SMALL, **more}, attn_implementation=attention)
    return AutoModelForCausalLM.from_config(config).eval()


def text(ids, first, weights=None):
    labels = np.array(ids)
    labels[:first] = -100
    return np.array(ids), labels, weights


def pair(prompt, chosen, rejected, weights=None):
    made = {}
    for side, answer in (("chosen", chosen), ("rejected", rejected)):
        ids, labels, _ = text([*prompt, *answer], len(prompt))
        made |= {f"{side}_input_ids": ids, f"{side}_labels": labels}
        if weights:
            made[f"{side}_loss_weights"] = np.linspace(1, weights, len(ids)).astype(np.float32)
    return made


PAIRS = [
    pair([5, 6, 7, 8], [9, 10, 11], [12, 13, 14, 15, 16]),
    pair([20, 21], [22, 23, 24, 25], [22, 23, 30]),  # answers that begin alike
    pair([40, 41, 42], [43], [43, 44, 45]),  # one is the beginning of the other
    pair([1, 2], [3, 4, 5, 6], [50]),
]
LAYOUTS = {
    "padded": (PairCollator(Collator(multiple=8)), PAIRS),
    "packed": (PairCollator(Collator()), [{"pairs": PAIRS[:3]}, {"pairs": PAIRS[3:]}]),
    "flat": (PairCollator(Collator(flat=True, multiple=8)), PAIRS),
    "flat packs": (PairCollator(Collator(flat=True)), [{"pairs": PAIRS[:1]}, {"pairs": PAIRS[1:]}]),
    "shared": (PairCollator(Collator(multiple=8), shared=True), PAIRS),
    "shared packs": (PairCollator(Collator(), shared=True), [{"pairs": PAIRS[:3]}, {"pairs": PAIRS[3:]}]),
}


def sums(model, batch):
    inputs = pair_inputs(batch, additive=additive_of(model))
    return target_log_probs(model, inputs, pair_targets(batch)).sums_R


def naive(model, side, one):
    ids, labels = (torch.from_numpy(one[f"{side}_{key}"]) for key in ("input_ids", "labels"))
    every = model(input_ids=ids[None]).logits[0].log_softmax(-1)
    return every[:-1].gather(1, ids[1:, None])[:, 0][labels[1:] != -100].sum()


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_neox", "qwen3"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_what_each_text_gives_alone(family, layout):
    model = tiny(family, "eager" if family == "gemma2" else "sdpa")
    collator, rows = LAYOUTS[layout]
    batch = collator(rows)
    assert num_pairs(batch) == 4
    expected = torch.stack([naive(model, side, one) for side in ("chosen", "rejected") for one in PAIRS])
    torch.testing.assert_close(sums(model, batch), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_are_those_of_each_text_alone(layout):
    model = tiny()
    collator, rows = LAYOUTS[layout]
    weights = torch.linspace(-1, 2, 8)
    found = torch.autograd.grad((sums(model, collator(rows)) * weights).sum(), list(model.parameters()))
    every = [naive(model, side, one) for side in ("chosen", "rejected") for one in PAIRS]
    expected = torch.autograd.grad((torch.stack(every) * weights).sum(), list(model.parameters()))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_end_of_a_text_is_its_last_token(layout):
    collator, rows = LAYOUTS[layout]
    batch = collator(rows)
    last = [int(one[f"{side}_input_ids"][-1]) for side in ("chosen", "rejected") for one in PAIRS]
    assert batch["input_ids"][text_ends(batch)].tolist() == last


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tokens_are_counted_with_their_prompts_in_every_layout(layout):
    collator, rows = LAYOUTS[layout]
    expected = sum(len(one[f"{side}_input_ids"]) for side in ("chosen", "rejected") for one in PAIRS)
    assert collator(rows)["num_tokens"].tolist() == [expected]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_of_tokens_go_with_them(layout):
    collator, _ = LAYOUTS[layout]
    weighted = [pair([5, 6, 7, 8], [9, 10, 11], [12, 13], weights=3.0)]
    batch = collator([{"pairs": weighted}] if "pack" in layout else weighted)
    chosen, rejected = np.linspace(1, 3, 7)[4:], np.linspace(1, 3, 6)[4:]
    assert batch["target_weights"].tolist() == pytest.approx([*chosen, *rejected])
    assert "target_weights" not in collator([{"pairs": PAIRS}] if "pack" in layout else PAIRS)


def test_shared_prompts_stand_in_a_row_once():
    batch = LAYOUTS["shared"][0](PAIRS[1:2])
    assert batch["input_ids"][0, :7].tolist() == [20, 21, 22, 23, 24, 25, 30]
    assert batch["position_ids"][0, :7].tolist() == [0, 1, 2, 3, 4, 5, 4]
    seen = branch_mask(batch["branches"])[0, 0]
    assert seen[6].nonzero()[:, 0].tolist() == [0, 1, 2, 3, 6]  # the rejected answer does not see the chosen one's rest
    assert seen[5].nonzero()[:, 0].tolist() == [0, 1, 2, 3, 4, 5]


def test_a_batch_with_media_keeps_its_prompts_apart():
    class Encoder:
        def encode(self, batch, media):
            return {"pixel_values": torch.ones(sum(map(len, media)), 3)}

    shown = {**PAIRS[0], "chosen_media": ("a.png",), "rejected_media": ("a.png",)}
    batch = PairCollator(Collator(media=Encoder()), shared=True)([shown, PAIRS[1]])
    assert batch["input_ids"].shape[0] == 4
    assert batch["pixel_values"].shape == (2, 3)
    assert "branches" not in batch
    assert set(pair_inputs(batch)) == {"input_ids", "attention_mask", "pixel_values"}


def test_what_a_batch_has_besides_is_not_given_to_the_model():
    collator = PairCollator(Collator(), extra=lambda pairs: {"ref_sums": torch.zeros(2 * len(pairs))})
    batch = collator(PAIRS)
    assert batch["ref_sums"].shape == (8,)
    assert set(pair_inputs(batch)) == {"input_ids", "attention_mask"}
