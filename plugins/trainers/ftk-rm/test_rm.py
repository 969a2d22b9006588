"""Stage rm as a whole. References: the formula of arXiv:2203.02155, eq. 1, written naively, pair by pair, on the hidden
states that transformers returns; and ``golden_losses.txt``, five losses that no refactoring may move.

When they have to move, ``python test_rm.py`` beside this file writes them anew; say why in the commit.
"""

import json
import math
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from ftk.opening import open_run
from ftk.run import Run
from ftk.testing import check_plugin, run_in
from ftk.testing.runs import plan_in
from ftk_rm.training import RewardLoss, rewards
from ftk_training import value_head
from ftk_training.collator import Collator
from ftk_training.pairs import PairCollator, num_pairs
from safetensors.torch import load_file

GOLDEN = Path(__file__).with_name("golden_losses.txt")
FORMULAS = Path(__file__).resolve().parents[4] / "shared" / "golden" / "preference_losses.json"
WORDS = ("one", "two", "three")
ROWS = [
    {
        "instruction": f"Repeat {word} {count} times.",
        "chosen": " ".join([word] * count),
        "rejected": "No. " * (5 - count),
    }
    for count in (1, 3, 4, 2)
    for word in WORDS
]
SETTINGS = {
    "stage": "rm",
    "model_name_or_path": "ftk://tiny-chat",
    "finetuning_type": "lora",
    "lora_rank": 4,
    "max_steps": 5,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "learning_rate": 1e-3,
    "cutoff_len": 128,
}
LAYOUTS = {
    "padded": {"share_prompts": False},
    "joined": {"padding_free": True},
    "packed": {"packing": True, "share_prompts": False},
    "shared": {"share_prompts": True},
}
METHODS = {
    "lora": {"finetuning_type": "lora", "lora_rank": 4},
    "full": {"finetuning_type": "full"},
    "freeze": {"finetuning_type": "freeze", "freeze_trainable_layers": 1},
}
FREEZE = pytest.mark.needs("ftk-freeze")
EACH_METHOD = ["lora", "full", pytest.param("freeze", marks=FREEZE)]


def dataset(folder, rows=ROWS, **columns):
    """The settings of a data set of pairs."""
    (folder / "pairs.json").write_text(json.dumps(rows))
    entry = {"file_name": "pairs.json", "ranking": True}
    columns = {"prompt": "instruction", "chosen": "chosen", "rejected": "rejected", **columns}
    (folder / "dataset_info.json").write_text(json.dumps({"pairs": {**entry, "columns": columns}}))
    return {"dataset": "pairs", "dataset_dir": str(folder)}


def run(folder, name="out", **more):
    return run_in(folder, **{**SETTINGS, **dataset(folder), "output_dir": str(folder / name), **more})


def log_of(done):
    return [json.loads(line) for line in (done.folder / "trainer_log.jsonl").read_text().splitlines()]


def losses(done):
    return [line["loss"] for line in log_of(done) if "loss" in line]


@pytest.mark.skipif(not FORMULAS.exists(), reason="the file of golden losses is not beside the repository")
def test_losses_are_those_of_the_golden_file(monkeypatch):
    (case,) = (case for case in json.loads(FORMULAS.read_text()) if case["loss"] == "reward_bt")
    given = [torch.tensor(case["inputs"][side]) for side in ("chosen", "rejected")]
    for number, wanted in enumerate(case["expected_per_pair"]):
        monkeypatch.setattr("ftk_rm.training.rewards", lambda *_, at=number: [one[at : at + 1] for one in given])
        assert float(RewardLoss()(None, {})[0]) == pytest.approx(wanted, rel=1e-6)


def test_the_plugin_keeps_the_contract():
    assert check_plugin("rm")


@pytest.mark.parametrize(("method", "kind"), [("lora", "lora"), pytest.param("freeze", "full", marks=FREEZE)])
def test_nobody_is_told_to_talk_to_it(tmp_path, capsys, method, kind):
    done = run(tmp_path, max_steps=1, finetuning_type=method)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.endswith(f"ftk run PPO.yaml --reward_model {done.folder} --reward_model_type {kind}")
    card = (done.folder / "README.md").read_text()
    assert "ftk chat" not in card
    assert last.partition(": ")[2] in card


def test_five_losses_have_not_moved(tmp_path):
    golden = [float(line) for line in GOLDEN.read_text().splitlines()]
    assert losses(run(tmp_path)) == pytest.approx(golden, rel=1e-4)


def test_a_run_that_was_killed_after_its_second_step_goes_on_with_the_same_losses(tmp_path):
    whole = run(tmp_path, save_strategy="steps", save_steps=1)
    lines, head = log_of(whole), (whole.folder / value_head.FILE).read_bytes()
    for step in (3, 4, 5):
        shutil.rmtree(whole.folder / f"checkpoint-{step}")
    (whole.folder / value_head.FILE).unlink()
    record = json.loads((whole.folder / "run.json").read_text())
    (whole.folder / "run.json").write_text(json.dumps({**record, "status": "running"}))
    again = run(tmp_path, save_strategy="steps", save_steps=1)
    assert again.record["status"] == "finished"
    wanted = ("loss", "accuracy", "rewards/chosen", "rewards/margins", "grad_norm")
    assert [[line[name] for name in wanted] for line in log_of(again)] == [
        [line[name] for name in wanted] for line in lines
    ]
    assert (again.folder / value_head.FILE).read_bytes() == head
    assert not list(again.folder.rglob("value_head.bin"))


@pytest.mark.parametrize("layout", ["padded", "joined", "shared"])
def test_a_batch_of_8_is_4_times_2_is_8_times_1_in_loss_metrics_and_gradients(tmp_path, layout):
    """One step of plain gradient descent, so that what moved is the gradient."""
    plain = {"max_steps": 1, "optim": "sgd", "learning_rate": 1.0, "max_grad_norm": 0.0, "finetuning_type": "full"}
    plain |= {"train_sampling_strategy": "sequential", "num_train_epochs": 1}
    whole = run(
        tmp_path, "8", share_prompts=False, per_device_train_batch_size=8, gradient_accumulation_steps=1, **plain
    )
    weights = load_file(whole.folder / "model.safetensors") | load_file(whole.folder / value_head.FILE)
    for size, count in ((8, 1), (2, 4), (1, 8)):
        one = run(
            tmp_path,
            f"{size}x{count}",
            per_device_train_batch_size=size,
            gradient_accumulation_steps=count,
            **LAYOUTS[layout],
            **plain,
        )
        for name in ("loss", "accuracy", "rewards/chosen", "rewards/rejected", "rewards/margins", "grad_norm"):
            assert log_of(one)[0][name] == pytest.approx(log_of(whole)[0][name], rel=1e-4, abs=1e-6), name
        found = load_file(one.folder / "model.safetensors") | load_file(one.folder / value_head.FILE)
        for name, value in weights.items():
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("method", EACH_METHOD)
def test_every_method_learns_to_tell_the_better_answer(tmp_path, method, layout):
    done = run(tmp_path, **METHODS[method], **LAYOUTS[layout], learning_rate=3e-3, max_steps=12)
    found = losses(done)
    assert found[-1] < 0.5 * found[0]
    assert log_of(done)[-1]["accuracy"] == 1.0


def model_and_rows(folder, **settings):
    plan = plan_in(folder, **{**SETTINGS, **dataset(folder), **settings})
    made = Run(plan)
    model = made.model(trainable=True).eval()
    value_head.attach(model, seed=1)
    return model, made.rows("train")


def test_packed_pairs_have_the_rewards_of_single_ones(tmp_path):
    """Short rows into rows of 128 tokens; of one epoch each pair is there once."""
    model, single = model_and_rows(tmp_path)
    _, packed = model_and_rows(tmp_path, packing=True)
    assert len(packed) < len(single) / 2
    found = []
    with torch.no_grad():
        for rows, flat in ((single, False), (packed, False), (packed, True)):
            batch = PairCollator(Collator(flat=flat))(list(rows))
            assert num_pairs(batch) == len(ROWS)
            chosen_P, rejected_P = rewards(model, batch)
            found.append(sorted(zip(chosen_P.tolist(), rejected_P.tolist(), strict=True)))
    for other in found[1:]:
        assert [one for pair in other for one in pair] == pytest.approx(
            [one for pair in found[0] for one in pair], abs=1e-4
        )


@pytest.mark.parametrize(("flat", "shared"), [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("family", ["ftk://tiny-chat", "ftk://random/gpt2", "ftk://random/gemma2"])
def test_losses_and_rewards_are_those_of_the_formula_on_single_texts(tmp_path, family, flat, shared):
    model, rows = model_and_rows(tmp_path, model_name_or_path=family, template="chatml")
    head = value_head.head_of(model)
    pairs = [rows[number] for number in (0, 5, 7)]

    def reward(ids):
        states = model(input_ids=torch.from_numpy(ids)[None], output_hidden_states=True, use_cache=False).hidden_states[
            -1
        ]
        return float((states[0, -1].float() * head.summary.weight[0]).sum() + head.summary.bias)

    with torch.no_grad():
        naive = [(reward(one["chosen_input_ids"]), reward(one["rejected_input_ids"])) for one in pairs]
        batch = PairCollator(Collator(multiple=8, flat=flat), shared=shared)(pairs)
        total, sums = RewardLoss()(model, batch)
        chosen_P, rejected_P = rewards(model, batch)
    assert num_pairs(batch) == 3
    assert chosen_P.tolist() == pytest.approx([one for one, _ in naive], abs=1e-4)
    assert rejected_P.tolist() == pytest.approx([one for _, one in naive], abs=1e-4)
    wanted = sum(-math.log(1 / (1 + math.exp(-(good - bad)))) for good, bad in naive)
    assert float(total) == pytest.approx(wanted, rel=1e-4)
    assert float(sums["accuracy"]) == sum(good > bad for good, bad in naive)
    assert float(sums["rewards/margins"]) == pytest.approx(sum(good - bad for good, bad in naive), abs=1e-4)


def test_an_evaluation_is_the_same_whatever_its_batches(tmp_path):
    """7 pairs: with a mean over batches the last, smaller one would count too much."""
    found = []
    for size in (1, 3, 8):
        done = run(tmp_path, f"{size}", max_steps=2, val_size=7, do_eval=True, per_device_eval_batch_size=size)
        found.append(
            [done.metrics[f"eval_{name}"] for name in ("loss", "accuracy", "rewards/chosen", "rewards/margins")]
        )
    assert found[1] == pytest.approx(found[0], rel=1e-4)
    assert found[2] == pytest.approx(found[0], rel=1e-4)


def test_an_engine_gives_the_rewards_that_were_trained(tmp_path):
    from ftk import Message, Prompt

    done = run(tmp_path, learning_rate=3e-3, max_steps=12)
    opened = open_run("chat", str(done.folder))
    engine = opened.engine()
    prompts = [
        Prompt((Message("user", row["instruction"]), Message("assistant", row[side])))
        for row in ROWS
        for side in ("chosen", "rejected")
    ]
    found = engine.reward(prompts)
    model, rows = model_and_rows(tmp_path, adapter_name_or_path=str(done.folder))
    value_head.load(model, done.folder)
    with torch.no_grad():
        chosen_P, rejected_P = rewards(model, PairCollator(Collator())(list(rows)))
    assert sorted(found[0::2]) == pytest.approx(sorted(chosen_P.tolist()), abs=1e-3)
    assert sorted(found[1::2]) == pytest.approx(sorted(rejected_P.tolist()), abs=1e-3)
    assert all(good > bad for good, bad in zip(found[0::2], found[1::2], strict=True))
    engine.close()


def test_an_output_layer_of_its_own_stays_as_it_is(tmp_path):
    model = "ftk://random/llama"
    before = Run(plan_in(tmp_path, model_name_or_path=model)).model(trainable=False).lm_head.weight
    done = run(tmp_path, model_name_or_path=model, template="chatml", finetuning_type="full", weight_decay=0.5)
    assert torch.equal(load_file(done.folder / "model.safetensors")["lm_head.weight"], before)


def test_the_bias_of_the_head_which_no_pair_can_teach_stays_as_it_is(tmp_path):
    done = run(tmp_path, save_strategy="steps", save_steps=1)
    first, last = (load_file(folder / value_head.FILE) for folder in (done.folder / "checkpoint-1", done.folder))
    assert torch.equal(first["v_head.summary.bias"], last["v_head.summary.bias"])
    assert not torch.equal(first["v_head.summary.weight"], last["v_head.summary.weight"])


def test_pictures_change_the_rewards(tmp_path):
    pytest.importorskip("ftk_media_llava", reason="needs a model that sees")
    from PIL import Image

    rows = [{**ROWS[0], "instruction": "<image>What colour?", "images": [f"{shade}.png"]} for shade in (0, 255)]
    for shade in (0, 255):
        Image.new("RGB", (32, 32), (shade,) * 3).save(tmp_path / f"{shade}.png")
    settings = {
        "model_name_or_path": "ftk://random/llava",
        "cutoff_len": 256,
        "max_steps": 1,
        "media_dir": str(tmp_path),
    }
    settings |= dataset(tmp_path, rows, images="images")
    done = run_in(
        tmp_path,
        **{
            **SETTINGS,
            **settings,
            "learning_rate": 0.0,
            "per_device_train_batch_size": 1,
            "max_steps": 2,
            "gradient_accumulation_steps": 1,
        },
    )
    first, second = [line["rewards/chosen"] for line in log_of(done)]
    assert first != second


def test_the_check_of_verify_passes_and_finds_a_wrong_loss_out(tmp_path, monkeypatch):
    verify = pytest.importorskip("ftk_verify.testing", reason="ftk verify makes the check")
    given = {**SETTINGS, **dataset(tmp_path), "model_name_or_path": "ftk://random/llama", "template": "chatml"}
    given.pop("max_steps")
    found = verify.outcome_in(tmp_path, "rm-loss", **given)
    assert found.passed, found
    right = torch.nn.functional.logsigmoid
    monkeypatch.setattr(torch.nn.functional, "logsigmoid", lambda margins_P: right(2 * margins_P))
    assert verify.outcome_in(tmp_path, "rm-loss", **given).passed is False


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        GOLDEN.write_text("".join(f"{loss:.7f}\n" for loss in losses(run(Path(name)))))
