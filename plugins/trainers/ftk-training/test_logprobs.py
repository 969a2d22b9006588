"""Log-probabilities of trained tokens. Reference: ``log_softmax`` over all logits of the model, text by text."""

import pytest
import torch
from ftk_training.collator import IGNORED, Collator
from ftk_training.logprobs import chosen_log_probs, log_probs, targets_of
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM
from transformers.models.auto import CONFIG_MAPPING

SMALL = {
    "vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0,
}  # fmt: skip
ROWS = [
    {"input_ids": torch.arange(3, 12).numpy(), "labels": torch.tensor([-100, -100, 5, 6, -100, 8, 9, 10, 11]).numpy()},
    {"input_ids": torch.arange(20, 25).numpy(), "labels": torch.tensor([-100, -100, -100, 23, 24]).numpy()},
    {"input_ids": torch.arange(30, 34).numpy(), "labels": torch.full((4,), -100).numpy()},
]


def tiny(family="llama", **more):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(CONFIG_MAPPING[family](**{**SMALL, **more}, use_cache=False)).eval()


def naive(model, row):
    """(sum, number) of a row by itself."""
    ids, labels = torch.from_numpy(row["input_ids"]), torch.from_numpy(row["labels"])
    every = model(input_ids=ids[None]).logits[0].float().log_softmax(-1)
    found = [every[at - 1, ids[at]] for at in range(1, len(ids)) if labels[at] != IGNORED]
    return sum(found, torch.zeros(())), len(found)


@pytest.mark.parametrize("family", ["llama", "gemma2", "cohere", "granite", "gpt_neox"])
@pytest.mark.parametrize("collator", [Collator(), Collator(flat=True), Collator(kept_logits=True, multiple=8)])
def test_sums_and_counts_are_those_of_each_row_alone(family, collator):
    model = tiny(family)
    found = log_probs(model, collator(ROWS))
    expected = [naive(model, row) for row in ROWS]
    assert found.counts_R[:3].tolist() == [number for _, number in expected]
    torch.testing.assert_close(found.sums_R[:3], torch.stack([total for total, _ in expected]), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.means_R, found.sums_R / found.counts_R.clamp(min=1))


@pytest.mark.parametrize("flat", [False, True])
def test_gradients_are_those_of_each_row_alone(flat):
    """With an adapter, also beside the output layer."""
    model = get_peft_model(tiny(), LoraConfig(target_modules=["q_proj", "lm_head"], init_lora_weights=False))
    weights = [one for one in model.parameters() if one.requires_grad]
    found = torch.autograd.grad(log_probs(model, Collator(flat=flat)(ROWS)).sums_R.sum(), weights)
    expected = torch.autograd.grad(sum(naive(model, row)[0] for row in ROWS), weights)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_only_positions_that_learn_enter_the_output_layer():
    model, seen = tiny(), []
    model.lm_head.register_forward_hook(lambda _, arguments, output: seen.append(tuple(output.shape)))
    log_probs(model, Collator()(ROWS))
    assert seen == [(1, 8, 64)]
    model(input_ids=torch.ones(2, 3, dtype=torch.int64))
    assert seen[-1] == (2, 3, 64)  # nothing is left behind on the layer


def test_a_batch_in_which_nobody_learns_gives_zeros_and_can_be_gone_back_through():
    model = tiny()
    found = log_probs(model, Collator()(ROWS[2:]))
    assert (found.sums_R.tolist(), found.counts_R.tolist()) == ([0.0], [0.0])
    found.sums_R.sum().backward()


@pytest.mark.parametrize("chunk", [1, 100, 2**22])
def test_chunks_of_the_vocabulary_change_neither_values_nor_gradients(monkeypatch, chunk):
    monkeypatch.setattr("ftk_training.logprobs.CHUNK", chunk)
    torch.manual_seed(0)
    logits, tokens = torch.randn(7, 33, requires_grad=True), torch.randint(33, (7,))
    weights = torch.randn(7)
    found = chosen_log_probs(logits, tokens)
    expected = logits.log_softmax(-1)[torch.arange(7), tokens]
    torch.testing.assert_close(found, expected)
    (one,), (other,) = (torch.autograd.grad((made * weights).sum(), logits) for made in (found, expected))
    torch.testing.assert_close(one, other)


def test_half_precision_logits_are_summed_in_float32():
    logits = torch.randn(5, 1000, dtype=torch.bfloat16)
    tokens = torch.arange(5)
    expected = logits.double().log_softmax(-1)[torch.arange(5), tokens]
    torch.testing.assert_close(chosen_log_probs(logits, tokens).double(), expected, rtol=1e-6, atol=1e-6)


def test_the_temperature_divides_logits():
    model = tiny()
    found = log_probs(model, Collator()(ROWS[:1]), temperature=2.0).tokens_N
    batch = Collator()(ROWS[:1])
    logits = model(input_ids=batch["input_ids"]).logits[0] / 2
    targets = targets_of(batch)
    expected = logits.log_softmax(-1)[targets.positions_N, targets.tokens_N]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_the_rank_of_a_token_counts_those_of_its_text_before_it():
    made = log_probs(tiny(), Collator()(ROWS))
    assert made.ranks_N.tolist() == [0, 1, 2, 3, 4, 5, 0, 1]
