"""Stage dpo as a whole. References: ``golden_losses.txt``, five losses that no refactoring may move, and for each run a
plainer one: padded rows, whole batches, a reference that is asked in every step.

When the losses have to move, ``python test_dpo.py`` beside this file writes them anew; say why in the commit.
"""

import json
import re
import tempfile
from pathlib import Path

import pytest
import torch
from ftk import ConfigError
from ftk.showing import show_plan
from ftk.testing import check_plugin, run_in
from ftk.testing.runs import plan_in
from ftk_dpo import losses as losses_of_pairs
from ftk_training.reference_cache import FILE, read
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

GOLDEN = Path(__file__).with_name("golden_losses.txt")
ROWS = [
    {
        "conversations": [{"from": "human", "value": f"Say {word} {count} times."}],
        "chosen": {"from": "gpt", "value": " ".join([word] * count)},
        "rejected": {"from": "gpt", "value": " ".join(["no", word] * (5 - count))},
    }
    for count in (1, 3, 4, 2)
    for word in ("one", "two", "three")
]
SETTINGS = {
    "stage": "dpo", "finetuning_type": "lora", "lora_rank": 4, "template": "chatml", "max_steps": 5,
    "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "learning_rate": 1e-2, "cutoff_len": 160,
}  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model"))


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


def entry(folder, rows=ROWS, name="pairs.json"):
    path = folder / name
    path.write_text(json.dumps(rows))
    columns = {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"}
    return {"file_name": str(path), "formatting": "sharegpt", "ranking": True, "columns": columns}


def lines(folder, model, name="out", **more):
    """What was logged, by step."""
    given = {**SETTINGS, "model_name_or_path": model, "dataset": [entry(folder)], "output_dir": str(folder / name)}
    run_in(folder, **{**given, **more})
    return [json.loads(line) for line in (folder / name / "trainer_log.jsonl").read_text().splitlines()]


def losses(*arguments, **more):
    return [line["loss"] for line in lines(*arguments, **more) if "loss" in line]


def numbers(line):
    """What must not depend on how a step was computed."""
    named = ("loss", "grad_norm", "num_tokens", "num_trained_tokens")
    return {key: value for key, value in line.items() if key in named or key.startswith(("rewards/", "logps/", "bco"))}


def same(found, expected, rel=1e-4):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert numbers(one) == pytest.approx(numbers(other), rel=rel, abs=1e-5)


def test_the_plugin_keeps_the_contract():
    assert check_plugin("dpo")


def test_five_losses_have_not_moved_nor_those_after_a_resume(tmp_path, tiny):
    golden = [float(line) for line in GOLDEN.read_text().splitlines()]
    assert losses(tmp_path, tiny, save_strategy="steps", save_steps=2) == pytest.approx(golden, rel=1e-5)
    checkpoint = str(tmp_path / "out" / "checkpoint-2")
    assert losses(tmp_path, tiny, "again", resume_from_checkpoint=checkpoint) == pytest.approx(golden[2:], rel=1e-5)


def test_it_begins_without_a_margin_and_learns_one(tmp_path, tiny):
    first, *_, last = lines(tmp_path, tiny, finetuning_type="full", learning_rate=3e-3, max_steps=10)
    assert first["loss"] == pytest.approx(0.6931472, abs=1e-6)
    assert first["rewards/margins"] == 0
    assert last["loss"] < 0.5 * first["loss"]
    assert last["rewards/accuracies"] >= 0.75
    assert last["rewards/margins"] == pytest.approx(last["rewards/chosen"] - last["rewards/rejected"], abs=1e-5)


BATCHES = [(8, 1), (4, 2), (1, 8)]


@pytest.mark.parametrize(
    "more",
    [{}, {"pref_loss": "kto_pair", "pref_bco_weight": 0.5, "ld_alpha": 0.5, "pref_ftx": 0.3}],
    ids=["sigmoid", "all that looks at more than a pair"],
)
def test_accumulation_changes_nothing(tmp_path, tiny, more):
    """Losses, gradients, rewards and tokens of three steps of 8, of 2 x 4 and of 8 x 1 pairs."""
    runs = [
        lines(
            tmp_path, tiny, f"{size}", per_device_train_batch_size=size, gradient_accumulation_steps=steps, max_steps=3,
            finetuning_type="full", learning_rate=1e-3, **more,
        )
        for size, steps in BATCHES
    ]  # fmt: skip
    for run in runs[1:]:
        same(run, runs[0])


WHOLE = {
    "per_device_train_batch_size": 12, "gradient_accumulation_steps": 1, "max_steps": 3, "learning_rate": 1e-3,
    "share_prompts": False,
}  # fmt: skip


LAYOUTS = {
    "packed": {"packing": True, "cutoff_len": 600},
    "padding_free": {"padding_free": True},
    "shared": {"share_prompts": True},
    "shared packs": {"share_prompts": True, "packing": True, "cutoff_len": 600},
}


@pytest.mark.parametrize(
    ("method", "layouts"),
    [
        ("lora", list(LAYOUTS)),
        ("full", ["shared packs"]),
        pytest.param("freeze", ["shared packs"], marks=pytest.mark.needs("ftk-freeze")),
    ],
)
def test_every_layout_trains_the_same(tmp_path, tiny, method, layouts, caplog):
    """All pairs in a step: padded, packed into few rows, in one row, behind shared prompts, and those packed."""
    caplog.set_level("INFO", "ftk")
    expected = lines(tmp_path, tiny, **WHOLE, finetuning_type=method)
    assert expected[0]["rewards/margins"] == 0 < expected[2]["rewards/margins"]
    for name in layouts:
        same(lines(tmp_path, tiny, name, **{**WHOLE, **LAYOUTS[name]}, finetuning_type=method), expected)
    shared = sum("shared" in name for name in layouts)
    assert caplog.text.count("prompts are computed once for both answers") == shared


def test_evaluation_does_not_depend_on_its_batches(tmp_path, tiny):
    found = [
        lines(
            tmp_path, tiny, f"{size}", eval_dataset=[entry(tmp_path)], do_eval=True, per_device_eval_batch_size=size,
            max_steps=2, pref_bco_weight=0.5,
        )[-1]
        for size in (1, 5, 12)
    ]  # fmt: skip
    names = [name for name in found[0] if name.startswith(("eval_rewards", "eval_logps", "eval_loss", "eval_bco"))]
    assert len(names) == 8
    for other in found[1:]:
        assert [other[name] for name in names] == pytest.approx([found[0][name] for name in names], rel=1e-5)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_what_the_reference_says_can_be_computed_once(tmp_path, tiny, method, caplog):
    caplog.set_level("INFO", "ftk")
    more = {"finetuning_type": method, "learning_rate": 1e-3, "max_steps": 4, "ld_alpha": 0.3}
    expected = lines(tmp_path, tiny, "asked", **more)
    more |= {"precompute_ref_log_probs": True, "save_strategy": "steps", "save_steps": 2}
    same(lines(tmp_path, tiny, "once", **more), expected)
    assert "24 texts, 2 batches computed" in caplog.text
    kept = tmp_path / "once" / FILE
    before = kept.stat().st_mtime_ns
    caplog.clear()
    again = lines(tmp_path, tiny, "once", **more, resume_from_checkpoint=str(tmp_path / "once" / "checkpoint-2"))
    same(again, expected)
    assert "24 texts, 0 batches computed" in caplog.text
    assert kept.stat().st_mtime_ns == before
    assert not len(read(kept, "other weights").keys_K)


def test_a_named_reference_is_asked_instead(tmp_path, tiny):
    other = LlamaForCausalLM.from_pretrained(tiny)
    with torch.no_grad():
        other.lm_head.weight.mul_(10)
    other.save_pretrained(tmp_path / "other")
    for file in Path(tiny).glob("*token*"):
        (tmp_path / "other" / file.name).write_bytes(file.read_bytes())
    found = lines(tmp_path, tiny, ref_model=str(tmp_path / "other"), max_steps=1)
    assert abs(found[0]["rewards/margins"]) > 1e-3


def test_a_model_that_lets_texts_see_each_other_is_not_packed(tmp_path):
    with pytest.raises(ConfigError, match=r"packing: True: .*Mamba.* does not keep the texts of a row apart"):
        lines(tmp_path, "ftk://random/mamba", packing=True)


def test_a_model_that_takes_no_mask_of_its_own_gets_prompts_for_each_answer(tmp_path, caplog):
    caplog.set_level("INFO", "ftk")
    found = lines(tmp_path, "ftk://random/mamba", max_steps=1, share_prompts=True)
    assert "prompts are computed for each answer: the model cannot: RuntimeError" in caplog.text
    assert found[0]["loss"] == pytest.approx(0.6931472, abs=1e-6)


def test_pictures_of_a_pair_are_seen(tmp_path, caplog):
    """A picture changes what the answers are worth; the pairs are computed apart."""
    image = pytest.importorskip("PIL.Image")
    found = []
    for number, color in enumerate(("red", "blue")):
        image.new("RGB", (28, 28), color).save(tmp_path / "picture.png")
        rows = [{**row, "images": ["picture.png"]} for row in ROWS[:2]]
        rows = [{**row, "conversations": [{"from": "human", "value": "<image>What?"}]} for row in rows]
        given = entry(tmp_path, rows, "pictures.json")
        given["columns"] |= {"images": "images"}
        found.append(
            lines(
                tmp_path, "ftk://random/llava", f"{number}", dataset=[given], max_steps=1, cutoff_len=1024,
                media_dir=str(tmp_path), template=None,
            )[0]
        )  # fmt: skip
    assert found[0]["loss"] == pytest.approx(0.6931472, abs=1e-6)
    assert found[0]["grad_norm"] > 0
    assert found[0]["logps/chosen"] != pytest.approx(found[1]["logps/chosen"], rel=1e-6)


def test_the_dry_run_names_the_loss(tmp_path, tiny, capsys):
    show_plan(plan_in(tmp_path, stage="dpo", model_name_or_path=tiny, dataset=[entry(tmp_path)], pref_loss="ipo"))
    assert re.search(r"5 train +preference_loss +ipo +ftk-dpo", capsys.readouterr().out)


def test_smoothing_belongs_to_sigmoid(tmp_path, tiny):
    with pytest.raises(ConfigError, match="dpo_label_smoothing needs pref_loss=sigmoid"):
        lines(tmp_path, tiny, pref_loss="ipo", dpo_label_smoothing=0.1)


EVERY_TERM = {"dpo_label_smoothing": 0.1, "pref_bco_weight": 0.5, "pref_ftx": 0.3, "ld_alpha": 0.4}


@pytest.mark.parametrize(
    "more",
    [{"finetuning_type": "full", **EVERY_TERM}, *({"pref_loss": loss} for loss in ("hinge", "ipo", "kto_pair"))],
    ids=["sigmoid", "hinge", "ipo", "kto_pair"],
)
def test_the_check_of_verify_passes_and_finds_a_wrong_loss_out(tmp_path, tiny, more, monkeypatch):
    """Another beta; and, for the loss that does not go through margins, a twentieth more."""
    verify = pytest.importorskip("ftk_verify.testing", reason="ftk verify makes the check")
    given = {**SETTINGS, "model_name_or_path": tiny, "dataset": [entry(tmp_path)], "pref_beta": 0.3, **more}
    del given["max_steps"]
    found = verify.outcome_in(tmp_path, "dpo-loss", **given)
    assert found.passed, found
    of_margins, rewarded = losses_of_pairs._of_margins, losses_of_pairs._rewarded
    if more.get("pref_loss") == "kto_pair":
        monkeypatch.setattr(
            losses_of_pairs, "_rewarded", lambda beta, scores, made: rewarded(beta, scores, 1.05 * made)
        )
    doubled = lambda run, loss: of_margins(run, lambda beta, margins: loss(2 * beta, margins))  # noqa: E731
    monkeypatch.setattr(losses_of_pairs, "_of_margins", doubled)
    assert verify.outcome_in(tmp_path, "dpo-loss", **given).passed is False


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model").mkdir()
        GOLDEN.write_text("".join(f"{loss:.7f}\n" for loss in losses(folder, tiny_model(folder / "model"))))
