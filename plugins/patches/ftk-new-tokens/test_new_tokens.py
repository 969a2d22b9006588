"""New rows against their definitions (the mean of known rows, of a description's rows), and runs with new tokens."""

from __future__ import annotations

import json

import pytest
import torch
from ftk import ConfigError, FtkError
from ftk.opening import open_run
from ftk.run import Run
from ftk.testing import check_plugin
from ftk.testing.runs import plan_in
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

MODEL = "ftk://random/llama"
WORDS = {"add_tokens": "kubectl,systemd", "add_special_tokens": "<|plan|>"}


def made(tmp_path, **settings) -> Run:
    return Run(plan_in(tmp_path, **{"model_name_or_path": MODEL, "finetuning_type": "full", **settings}))


def rows(run: Run) -> torch.Tensor:
    return run.model(trainable=True).get_input_embeddings().weight.detach()


def test_the_plugin_keeps_the_contract():
    assert check_plugin("new-tokens")


def test_words_are_one_token_and_control_tokens_are_left_out_when_decoding(tmp_path):
    tokenizer = made(tmp_path, **WORDS).tokenizer
    ids = tokenizer("kubectl<|plan|>systemd", add_special_tokens=False)["input_ids"]
    assert len(ids) == 3
    assert tokenizer.decode(ids).replace(" ", "") == "kubectl<|plan|>systemd"
    assert tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "") == "kubectlsystemd"


def test_matrices_grow_to_a_multiple_of_64_and_known_rows_stay(tmp_path):
    before, after = rows(made(tmp_path)), rows(made(tmp_path, **WORDS))
    assert len(after) % 64 == 0
    assert len(after) >= len(before) + 3
    assert torch.equal(after[: len(before)], before)


def test_new_rows_are_the_mean_and_noise_of_the_stated_size(tmp_path):
    run = made(tmp_path, add_tokens=",".join(f"wordnumber{i}" for i in range(300)))
    weight, new = rows(run), list(run.tokens.added)
    assert len(new) == 300
    noise = weight[new] - weight[: len(run.tokenizer) - 300].mean(dim=0)
    width = weight.shape[1]
    assert noise.std().item() == pytest.approx(width**-0.5, rel=0.03)
    assert noise.mean(dim=0).abs().max() < 5 * (width * 300) ** -0.5


@pytest.mark.parametrize(("way", "exact"), [("desc_init", True), ("desc_init_w_noise", False), ("noise_init", False)])
def test_a_described_token_begins_with_what_it_means(tmp_path, way, exact):
    (tmp_path / "tokens.yaml").write_text('"<|plan|>": think of a plan\n')
    run = made(tmp_path, new_special_tokens_config=str(tmp_path / "tokens.yaml"), init_special_tokens=way)
    weight, (new,) = rows(run), run.tokens.added
    meaning = weight[run.tokenizer("think of a plan", add_special_tokens=False)["input_ids"]].mean(dim=0)
    assert torch.allclose(weight[new], meaning, atol=1e-6) == exact


def test_the_output_layer_has_its_own_mean(tmp_path):
    run = made(tmp_path, model_name_or_path=f"{MODEL}?tie_word_embeddings=false", add_tokens="kubectl")
    model, (new,) = run.model(trainable=True), run.tokens.added
    inner, outer = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    assert inner.shape == outer.shape
    assert not torch.equal(inner[new], outer[new])
    known = len(run.tokenizer) - 1
    assert (outer[new] - outer[:known].mean(dim=0)).norm() < 2


def test_the_seed_decides_the_rows(tmp_path):
    first, again = rows(made(tmp_path, **WORDS)), rows(made(tmp_path, **WORDS))
    other = rows(made(tmp_path, seed=7, **WORDS))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_spare_rows_are_used_before_matrices_grow(tmp_path):
    wide = f"{MODEL}?vocab_size=4096"
    before, run = rows(made(tmp_path, model_name_or_path=wide)), made(tmp_path, model_name_or_path=wide, **WORDS)
    after = rows(run)
    changed = (after != before).any(dim=1).nonzero().flatten().tolist()
    assert after.shape == before.shape
    assert changed == sorted(run.tokens.added)


def test_resizing_alone_fits_the_model_to_its_tokenizer(tmp_path):
    short = f"{MODEL}?vocab_size=1000"
    run = made(tmp_path, model_name_or_path=short, resize_vocab=True)
    assert len(run.tokenizer) > 1000
    assert len(rows(run)) >= len(run.tokenizer)
    assert run.tokens.added == ()


@pytest.mark.parametrize("tied", ["true", "false"])
@pytest.mark.parametrize("finetuning_type", ["full", "lora"])
def test_a_result_is_loaded_with_what_its_tokens_have_learnt(ftk_run, tmp_path, finetuning_type, tied):
    data = tmp_path / "rows.jsonl"
    data.write_text(json.dumps({"instruction": "kubectl", "output": "<|plan|>systemd"}) + "\n")
    finished = ftk_run(
        model_name_or_path=f"{MODEL}?tie_word_embeddings={tied}", dataset=str(data), learning_rate=0.05, max_steps=2,
        finetuning_type=finetuning_type, **WORDS,
    )  # fmt: skip
    run = open_run("chat", finished.folder, [])
    model = run.model(trainable=False)
    ids = run.tokenizer("kubectl<|plan|>systemd", return_tensors="pt", add_special_tokens=False)
    assert ids["input_ids"].shape[1] == 3
    untrained = made(tmp_path, model_name_or_path=f"{MODEL}?tie_word_embeddings={tied}", **WORDS)
    start = rows(untrained)
    weight = model.get_input_embeddings().weight
    moved = (weight[: len(start)] - start).abs().amax(dim=1) > 1e-4
    assert all(moved[one] for one in untrained.tokens.added)
    if finetuning_type == "lora":
        assert moved.sum() == len(untrained.tokens.added)
        size = sum(one.numel() for one in load_file(finished.folder / "adapter_model.safetensors").values())
        assert size < start.numel()
    else:
        plain = AutoModelForCausalLM.from_pretrained(finished.folder)
        same = AutoTokenizer.from_pretrained(finished.folder)("kubectl<|plan|>systemd", add_special_tokens=False)
        assert same["input_ids"] == ids["input_ids"][0].tolist()
        assert torch.equal(plain(**ids).logits, model(**ids).logits)


def test_what_the_tokenizer_knows_is_no_new_token(tmp_path):
    run = made(tmp_path, add_special_tokens="<|im_end|>")
    assert run.tokens.added == ()


@pytest.mark.parametrize("content", ["- a\n- b\n", '"<|plan|>": 3\n', "a: [", "\xff"])
def test_a_file_that_is_no_table_is_one_line(tmp_path, content):
    (tmp_path / "tokens.yaml").write_bytes(content.encode("latin-1"))
    run = made(tmp_path, new_special_tokens_config=str(tmp_path / "tokens.yaml"))
    with pytest.raises(ConfigError, match=r"tokens\.yaml: (is no table|cannot be read)") as error:
        run.tokens  # noqa: B018 (a property that loads)
    assert "\n" not in str(error.value)


def test_two_lists_of_control_tokens_are_refused(tmp_path):
    with pytest.raises(FtkError, match="new_special_tokens_config and add_special_tokens exclude each other"):
        plan_in(tmp_path, new_special_tokens_config="tokens.yaml", add_special_tokens="<a>")
