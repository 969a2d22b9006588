"""Stage kto as a whole. References: equations 7 and 8 of arXiv:2402.01306 written naively, answer by answer, on the
logits of single texts; the golden file of losses; and ``golden_losses.txt``, five losses that no refactoring may move.

When they have to move, ``python test_kto.py`` beside this file writes them anew; say why in the commit.
"""

import json
import math
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from ftk import ConfigError
from ftk.run import Run
from ftk.testing import check_plugin, run_in
from ftk.testing.runs import plan_in
from ftk_kto import training
from ftk_kto.batches import Feedback, mismatched_part, without_mismatched
from ftk_kto.losses import Weighting, drift, kto_losses
from ftk_kto.training import Kto
from ftk_training.collator import Collator
from ftk_training.reference_cache import FILE
from safetensors.torch import load_file

GOLDEN = Path(__file__).with_name("golden_losses.txt")
FORMULAS = Path(__file__).resolve().parents[4] / "shared" / "golden" / "preference_losses.json"
ROWS = [
    {
        "instruction": f"Repeat {word} {count} times.",
        "output": " ".join([word] * (count if liked else 7)),
        "liked": liked,
    }
    for count, liked in ((1, True), (3, False), (4, True), (2, True))
    for word in ("one", "two", "three")
]
SETTINGS = {
    "stage": "kto",
    "model_name_or_path": "ftk://tiny-chat",
    "finetuning_type": "lora",
    "lora_rank": 4,
    "max_steps": 5,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "learning_rate": 2e-3,
    "cutoff_len": 128,
    "pref_beta": 0.3,
    "kto_rejected_weight": 1.5,
    "pref_ftx": 0.1,
}
METHODS = {
    "lora": {"finetuning_type": "lora", "lora_rank": 4},
    "full": {"finetuning_type": "full"},
    "freeze": {"finetuning_type": "freeze", "freeze_trainable_layers": 1},
}
FREEZE = pytest.mark.needs("ftk-freeze")
EACH_METHOD = ["lora", "full", pytest.param("freeze", marks=FREEZE)]
TOLD = ("loss", "kl", "rewards/margins", "rewards/chosen", "rewards/rejected", "logps/chosen", "logps/rejected")


def dataset(folder, rows=ROWS, **columns):
    """The settings of a data set of feedback."""
    (folder / "feedback.json").write_text(json.dumps(rows))
    columns = {"prompt": "instruction", "response": "output", "kto_tag": "liked", **columns}
    entry = {"file_name": "feedback.json", "columns": columns}
    (folder / "dataset_info.json").write_text(json.dumps({"feedback": entry}))
    return {"dataset": "feedback", "dataset_dir": str(folder)}


def run(folder, name="out", **more):
    return run_in(folder, **{**SETTINGS, **dataset(folder), "output_dir": str(folder / name), **more})


def log_of(done):
    return [json.loads(line) for line in (done.folder / "trainer_log.jsonl").read_text().splitlines()]


def losses(done):
    return [line["loss"] for line in log_of(done) if "loss" in line]


def test_the_plugin_keeps_the_contract():
    assert check_plugin("kto")


def sigmoid(number):
    return 1 / (1 + math.exp(-number))


@pytest.mark.skipif(not FORMULAS.exists(), reason="the file of golden losses is not beside the repository")
def test_losses_are_those_of_the_golden_file():
    cases = [case for case in json.loads(FORMULAS.read_text()) if case["loss"] == "kto"]
    assert cases
    for case in cases:
        params, inputs = case["params"], {name: torch.tensor(one) for name, one in case["inputs"].items()}
        how = Weighting(params["beta"], params["desirable_weight"], params["undesirable_weight"])
        for side in ("chosen", "rejected"):
            ratios_R = inputs[f"policy_{side}_logps"] - inputs[f"ref_{side}_logps"]
            liked_R = torch.full(ratios_R.shape, side == "chosen")
            found = kto_losses(ratios_R, liked_R, torch.tensor(params["kl"]), how)
            assert found.tolist() == pytest.approx(case[f"expected_{side}"], rel=1e-5)


def test_an_estimate_below_zero_is_zero():
    assert float(drift(torch.tensor(-3.0), torch.tensor(2))) == 0.0
    assert float(drift(torch.tensor(3.0), torch.tensor(2))) == 1.5


class Trained:
    """A policy that is not its reference, with the rows of the data, and the formula answer by answer."""

    def __init__(self, folder, **settings):
        plan = plan_in(folder, **{**SETTINGS, **dataset(folder), **settings})
        self.made = Run(plan)
        self.rows = list(self.made.rows("train"))
        self.model = self.made.model(trainable=True).eval()
        self.model.config.use_cache = False  # as the trainer has it: else texts that share a row are not kept apart
        torch.manual_seed(1)
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                parameter.data += 0.02 * torch.randn_like(parameter)

    def ratio(self, ids, labels):
        """log π - log π_ref of the trained tokens of one text."""
        ids, labels = torch.as_tensor(ids)[None], torch.as_tensor(labels)

        def summed():
            words = self.model(input_ids=ids, use_cache=False).logits[0].float().log_softmax(-1)
            return sum(float(words[at - 1, labels[at]]) for at in range(1, len(labels)) if labels[at] != -100)

        with torch.no_grad():
            policy = summed()
            with self.model.disable_adapter():
                return policy - summed()


def naive(ratios, liked, kl, beta=0.3, rejected=1.5):
    return [
        1 - sigmoid(beta * (ratio - kl)) if good else rejected * (1 - sigmoid(beta * (kl - ratio)))
        for ratio, good in zip(ratios, liked, strict=True)
    ]


@pytest.mark.parametrize("flat", [False, True])
def test_losses_and_the_estimate_are_those_of_the_formula_on_single_texts(tmp_path, flat):
    trained = Trained(tmp_path, pref_ftx=0.0)
    rows = trained.rows[:5]
    assert len({row["desirable"] for row in rows}) == 2
    stage = Kto(trained.made)
    stage.reference = Disabled(trained.model)
    batch = Feedback(Collator(multiple=8, flat=flat))(rows)
    ratios = [trained.ratio(row["input_ids"], row["labels"]) for row in rows]
    mismatched = [trained.ratio(row["kl_input_ids"], row["kl_labels"]) for row in rows]
    assert len({len(row["kl_input_ids"]) for row in rows}) > 1
    stage.trainer = Fake(trained.model)
    assert float(stage._mismatched(batch)) == pytest.approx(sum(mismatched), abs=1e-3)
    for kl in (0.0, 0.7):
        with torch.no_grad():
            total, told = stage(trained.model, {**without_mismatched(batch), "kl": torch.tensor(kl)})
        wanted = naive(ratios, [row["desirable"] for row in rows], kl)
        assert float(total) == pytest.approx(sum(wanted), rel=1e-4)
        good = [0.3 * ratio for ratio, row in zip(ratios, rows, strict=True) if row["desirable"]]
        assert float(told["rewards/chosen"][0]) == pytest.approx(sum(good), abs=1e-3)
        assert int(told["rewards/chosen"][1]) == len(good)


class Disabled:
    def __init__(self, policy):
        self.policy = policy

    def model(self, policy):
        from contextlib import contextmanager

        @contextmanager
        def entered():
            with torch.no_grad(), self.policy.disable_adapter():
                yield self.policy

        return entered()


class Fake:
    """What of a trainer the estimate asks."""

    def __init__(self, model):
        from contextlib import nullcontext

        self.model, self.compute_loss_context_manager = model, nullcontext


def test_a_mismatched_pair_is_a_prompt_with_the_answer_of_the_row_before(tmp_path):
    trained = Trained(tmp_path)
    first, second = trained.rows[3:5]
    batch = mismatched_part(Feedback(Collator())([first, second]))
    answer = [int(token) for token in first["labels"] if token != -100]
    assert [int(token) for token in batch["labels"][1] if token != -100] == answer
    start = int((torch.as_tensor(second["labels"]) != -100).nonzero()[0])
    assert batch["input_ids"][1, :start].tolist() == list(second["input_ids"][:start])


def test_five_losses_have_not_moved(tmp_path):
    golden = [float(line) for line in GOLDEN.read_text().splitlines()]
    assert losses(run(tmp_path)) == pytest.approx(golden, rel=1e-4)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_run_that_was_killed_after_its_second_step_goes_on_with_the_same_losses(tmp_path, method):
    """Where the whole model learns, the reference of the resumed run is the model as it began, not as it stopped."""
    settings = {"save_strategy": "steps", "save_steps": 1, **METHODS[method]}
    whole = run(tmp_path, **settings)
    lines = [[line.get(name) for name in (*TOLD, "grad_norm")] for line in log_of(whole)]
    for step in (3, 4, 5):
        shutil.rmtree(whole.folder / f"checkpoint-{step}")
    record = json.loads((whole.folder / "run.json").read_text())
    (whole.folder / "run.json").write_text(json.dumps({**record, "status": "running"}))
    again = run(tmp_path, **settings)
    assert again.record["status"] == "finished"
    assert [[line.get(name) for name in (*TOLD, "grad_norm")] for line in log_of(again)] == lines
    assert lines[-1][1] > 0, "the policy has not moved"


@pytest.mark.parametrize("padding_free", [False, True])
def test_a_batch_of_8_is_4_times_2_is_8_times_1_in_loss_metrics_and_gradients(tmp_path, padding_free):
    """Two steps of plain gradient descent, so that what moved is the gradient and z0 of the second is not 0."""
    plain = {"max_steps": 2, "optim": "sgd", "learning_rate": 4e-3, "max_grad_norm": 0.0, "finetuning_type": "full"}
    plain |= {"train_sampling_strategy": "sequential", "lr_scheduler_type": "constant", "pref_ftx": 1.0}
    plain |= {"kto_rejected_weight": 0.5}
    whole = run(tmp_path, "8", per_device_train_batch_size=8, gradient_accumulation_steps=1, **plain)
    weights = load_file(whole.folder / "model.safetensors")
    assert log_of(whole)[1]["kl"] > 0
    for size, count in ((8, 1), (2, 4), (1, 8)):
        one = run(
            tmp_path,
            f"{size}x{count}",
            per_device_train_batch_size=size,
            gradient_accumulation_steps=count,
            padding_free=padding_free,
            **plain,
        )
        for line, wanted in zip(log_of(one), log_of(whole), strict=True):
            for name in wanted.keys() & {*TOLD, "grad_norm"}:
                assert line[name] == pytest.approx(wanted[name], rel=1e-3, abs=1e-5), name
        found = load_file(one.folder / "model.safetensors")
        for name, value in weights.items():
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("padding_free", [False, True])
@pytest.mark.parametrize("method", EACH_METHOD)
def test_every_method_learns_to_prefer_liked_answers(tmp_path, method, padding_free):
    done = run(tmp_path, **{**METHODS[method], "pref_ftx": 0.0, "max_steps": 10, "padding_free": padding_free})
    found = losses(done)
    assert found[-1] < found[0]
    last = log_of(done)[-1]
    assert last["rewards/margins"] == pytest.approx(last["rewards/chosen"] - last["rewards/rejected"], abs=1e-6)
    assert last["rewards/margins"] > 0.2


def test_a_batch_of_one_row_learns(tmp_path):
    done = run(tmp_path, per_device_train_batch_size=1, gradient_accumulation_steps=1, max_steps=12)
    assert any(line["kl"] > 0 for line in log_of(done))
    assert not any("rewards/margins" in line for line in log_of(done)), "one answer has no margin"


WHOLE = {"per_device_train_batch_size": 12, "gradient_accumulation_steps": 1, "max_steps": 3, "pref_ftx": 0.5}


@pytest.mark.parametrize(
    ("method", "layouts"),
    [("lora", ("packs", "flat")), ("full", ("packs",)), pytest.param("freeze", ("packs",), marks=FREEZE)],
)
def test_packed_rows_train_as_padded_ones(tmp_path, method, layouts):
    """Losses, norms of gradients, rewards and z0 of three steps of all rows, packed into few and those joined."""
    more = {**WHOLE, **METHODS[method], "train_sampling_strategy": "sequential", "cutoff_len": 300}
    wanted = log_of(run(tmp_path, **more))
    assert wanted[2]["kl"] > 0
    for name in layouts:
        done = run(tmp_path, name, packing=True, padding_free=name == "flat", **more)
        assert json.loads((done.folder / "data_report.json").read_text())["train"]["num_rows"] < len(ROWS) / 2
        for line, other in zip(log_of(done), wanted, strict=True):
            for told in (*TOLD, "grad_norm", "num_tokens", "num_trained_tokens"):
                assert line[told] == pytest.approx(other[told], rel=1e-3, abs=1e-5), told


def test_packs_hold_each_row_once_and_each_fits_with_anothers_answer(tmp_path):
    alone, packed = (
        Run(plan_in(tmp_path, **{**SETTINGS, **dataset(tmp_path), "packing": packing})).rows("train")
        for packing in (False, True)
    )
    members = [one for row in packed for one in row["feedback"]]
    assert sorted(str(one) for one in members) == sorted(str(one) for one in alone)
    for row, length in zip(packed, packed.lengths_N, strict=True):
        sizes = [max(len(one["input_ids"]), len(one["kl_input_ids"])) for one in row["feedback"]]
        assert sum(sizes) == length <= SETTINGS["cutoff_len"]


def test_a_model_that_lets_texts_see_each_other_is_not_packed(tmp_path):
    with pytest.raises(ConfigError, match=r"packing: True: .*Mamba.* does not keep the texts of a row apart"):
        run(tmp_path, model_name_or_path="ftk://random/mamba", template="chatml", packing=True)


@pytest.mark.parametrize(("method", "packing"), [("lora", True), ("full", False)])
def test_what_the_reference_says_can_be_computed_once(tmp_path, method, packing, caplog):
    """Against a reference that is asked in every step; a run that goes on computes nothing again."""
    caplog.set_level("INFO", "ftk")
    more = {**WHOLE, **METHODS[method], "max_steps": 4, "packing": packing}
    wanted = log_of(run(tmp_path, "asked", **more))
    more |= {"precompute_ref_log_probs": True, "save_strategy": "steps", "save_steps": 2}
    once = run(tmp_path, "once", **more)
    assert "reference: 24 texts" in caplog.text
    before = (once.folder / FILE).stat().st_mtime_ns
    caplog.clear()
    again = run(tmp_path, "once", **more, resume_from_checkpoint=str(once.folder / "checkpoint-2"))
    assert "reference: 24 texts, 0 batches computed" in caplog.text
    assert (again.folder / FILE).stat().st_mtime_ns == before
    for done in (once, again):
        for line, other in zip(log_of(done), wanted, strict=True):
            for told in (*TOLD, "grad_norm"):
                assert line[told] == pytest.approx(other[told], rel=1e-3, abs=1e-5), told


def test_an_adapter_that_is_only_evaluated_is_measured_against_the_model_without_it(tmp_path):
    trained = run(tmp_path, do_eval=True, eval_dataset="feedback", **{**WHOLE, "max_steps": 5})
    names = [f"eval_{name}" for name in TOLD]
    alone = run(
        tmp_path, "alone", do_train=False, do_eval=True, dataset=None, eval_dataset="feedback", pref_ftx=0.5,
        adapter_name_or_path=str(trained.folder),
    )  # fmt: skip
    assert abs(alone.metrics["eval_rewards/margins"]) > 0.01
    assert [alone.metrics[name] for name in names] == pytest.approx([trained.metrics[name] for name in names], rel=1e-3)


def test_an_evaluation_is_the_same_whatever_its_batches(tmp_path):
    found = []
    for size in (1, 3, 8):
        done = run(tmp_path, f"{size}", max_steps=3, val_size=5, do_eval=True, per_device_eval_batch_size=size)
        told = {f"eval_{name}" for name in TOLD}
        found.append({name: value for name, value in done.metrics.items() if name in told})
    assert found[1] == pytest.approx(found[0], rel=1e-4)
    assert found[2] == pytest.approx(found[0], rel=1e-4)


def test_liked_answers_alone_pull_with_pref_ftx(tmp_path):
    """Against the mean over liked answers of their negative log-probability per token, on the first step, where π is
    π_ref and the loss of KTO is half the weights' mean."""
    more = {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 4, "train_sampling_strategy": "sequential"}
    with_it, without = (losses(run(tmp_path, f"{ftx}", max_steps=1, pref_ftx=ftx, **more)) for ftx in (0.5, 0.0))
    assert without[0] == pytest.approx((9 * 1.0 + 3 * 1.5) * 0.5 / 12, rel=1e-5)
    made = Run(plan_in(tmp_path, **{**SETTINGS, **dataset(tmp_path)}))
    model, means = made.model(trainable=False).eval(), []
    for row in made.rows("train"):
        if row["desirable"]:
            labels = torch.from_numpy(row["labels"])[None]
            with torch.no_grad():
                means.append(float(model(input_ids=torch.from_numpy(row["input_ids"])[None], labels=labels).loss))
    assert with_it[0] - without[0] == pytest.approx(0.5 * sum(means) / len(means), rel=1e-4)


def test_pictures_are_shown_to_policy_and_reference(tmp_path):
    pytest.importorskip("ftk_media_llava", reason="needs a model that sees")
    from PIL import Image

    for shade in (0, 255):
        Image.new("RGB", (32, 32), (shade,) * 3).save(tmp_path / f"{shade}.png")
    rows = [{**ROWS[0], "instruction": "<image>What colour?", "images": [f"{shade}.png"]} for shade in (0, 255)]
    seeing = {
        "model_name_or_path": "ftk://random/llava",
        "cutoff_len": 256,
        "media_dir": str(tmp_path),
        "pref_ftx": 0.0,
    }
    one = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 1, "learning_rate": 0.0, "max_steps": 2}
    done = run_in(tmp_path, **{**SETTINGS, **seeing, **one, **dataset(tmp_path, rows, images="images")})
    first, second = log_of(done)
    assert first["logps/chosen"] != second["logps/chosen"]
    assert first["rewards/chosen"] == pytest.approx(0, abs=1e-5)
    assert first["kl"] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_check_of_verify_passes_and_finds_another_beta_out(tmp_path, monkeypatch, method):
    """Answers of both kinds: where all are liked, their gains over z0 nearly cancel, and β with them."""
    verify = pytest.importorskip("ftk_verify.testing", reason="the check is made by ftk verify")
    more = {**SETTINGS, **METHODS[method], **dataset(tmp_path, ROWS[2:5]), "model_name_or_path": "ftk://random/llama"}
    more["template"] = "chatml"
    del more["max_steps"]
    assert verify.outcome_in(tmp_path, "kto-loss", **more).passed
    right = training.kto_losses
    monkeypatch.setattr(
        training, "kto_losses", lambda *given: right(*given[:3], Weighting(0.6, given[3].chosen, given[3].rejected))
    )
    assert verify.outcome_in(tmp_path, "kto-loss", **more).passed is False


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        GOLDEN.write_text("".join(f"{loss:.7f}\n" for loss in losses(run(Path(name)))))
