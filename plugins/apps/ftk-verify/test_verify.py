"""Each check passes on a sound run and fails on one that is broken in the way that it is about.

The references are the breakages themselves: a trainer that averages micro-batches, a model that leaks, an optimizer
that is forgotten, an adapter saved with another scale, a patch that changes the loss, a template that never stops.
"""

import json
from itertools import count

import pytest
import yaml
from ftk.testing import check_plugin
from ftk_training import checkpoints, fitting
from ftk_training.checks import Check, Outcome
from ftk_training.trainer import ExactTrainer
from ftk_verify.bench import Bench
from ftk_verify.verify_command import tried

ROWS = [
    {"instruction": f"Say {word}.", "input": "", "output": " ".join([word] * count)}
    for word, count in (("one", 1), ("two", 12), ("three", 5), ("four", 30), ("five", 2), ("six", 3), ("seven", 9))
]
SETTINGS = {
    "model_name_or_path": "ftk://random/llama", "stage": "sft", "template": "chatml", "finetuning_type": "lora",
    "cutoff_len": 128, "learning_rate": 1e-3, "use_cpu": True, "per_device_train_batch_size": 2,
}  # fmt: skip
BROKEN = '''
"""Ways to break a run."""
import ftk

@ftk.options
class BrokenOptions:
    zz_dear: bool = ftk.option(False, help="The loss is a tenth more than it is.")

@ftk.hookimpl
def ftk_model_patches():
    yield ftk.ModelPatch("zz-dear", target="ftk_zz_broken:dear", options=BrokenOptions,
                         switch="zz_dear", summary="Dear")

@ftk.hookimpl
def ftk_chat_templates():
    yield ftk.ChatTemplate("zz-endless", user="[{content}]", assistant="{content}", summary="Trains no stop token")

def dear(model, run):
    def more(module, arguments, outputs):
        outputs.loss = outputs.loss * 1.1 if outputs.loss is not None else None
        return outputs
    model.register_forward_hook(more)
    return model
'''
OF_A_STAGE = '''
"""A stage with a check of its own."""
import ftk
from ftk_data import DataOptions, TemplateOptions
from ftk_training import Check, TrainingOptions
from ftk_training.checks import measured

@ftk.hookimpl
def ftk_trainers():
    yield ftk.Trainer("zz-stage", target="ftk_zz_stage:train", rows="ftk_data.rows:build_chat",
                      options=(DataOptions, TemplateOptions, TrainingOptions), summary="As sft")

@ftk.hookimpl
def ftk_checks():
    yield Check("zz-loss", target="ftk_zz_stage:by_hand", needs=("trainer:zz-stage",), summary="It is two",
                mend="Make it two")

def train(run):
    from ftk_training.fitting import fit
    return fit(run, loss=lambda model, batch: (model(**batch).loss * count(batch), {}), count=count)

def count(batch):
    return (batch["labels"][:, 1:] != -100).sum()

def by_hand(bench):
    trained = bench.train(still=True, num_rows=2, look=lambda trained: trained.trainer.state.global_step)
    return measured("twice the steps", 2 * trained.seen, 3, bench.tolerance)
'''


def test_the_plugin_keeps_the_contract():
    assert check_plugin("verify")


@pytest.fixture
def config(tmp_path):
    """``config(key=value)``: a YAML with settings over small ones."""

    def write(**settings):
        rows, path = tmp_path / "rows.json", tmp_path / "run.yaml"
        rows.write_text(json.dumps(ROWS))
        made = {**SETTINGS, "dataset": str(rows), "output_dir": str(tmp_path / "mine"), **settings}
        path.write_text(yaml.safe_dump(made))
        return str(path)

    return write


@pytest.fixture
def outcome_of(config, tmp_path):
    """``outcome_of("loss", key=value)``: what a check says of a run."""
    numbers = count()

    def make(name, **settings):
        folder = tmp_path / f"bench-{next(numbers)}"
        folder.mkdir()
        bench = Bench(config(**settings), (), folder)
        outcome = tried(bench.plan.registry.find(Check.kind, name), bench).outcome
        assert not (tmp_path / "mine").exists()  # the user's folder
        assert outcome.said
        return outcome

    return make


# accumulation


def test_accumulation_equals_batch(outcome_of):
    assert outcome_of("accumulation").passed


def test_a_trainer_that_averages_micro_batches_is_found_out(outcome_of, monkeypatch):
    class Averaging(ExactTrainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            return super().compute_loss(model, inputs, return_outputs) / self.args.gradient_accumulation_steps

    monkeypatch.setattr(fitting, "ExactTrainer", Averaging)
    found = outcome_of("accumulation")
    assert found.passed is False
    assert len(found.details) == 3


def test_it_does_not_apply_to_one_row(outcome_of, tmp_path):
    (tmp_path / "one.json").write_text(json.dumps(ROWS[:1]))
    assert outcome_of("accumulation", dataset=str(tmp_path / "one.json")) == Outcome(None, "there is only one row")


# packing


def test_packed_equals_unpacked(outcome_of):
    assert outcome_of("packing", packing=True).passed
    assert outcome_of("packing", padding_free=True).passed


def test_it_does_not_apply_to_a_run_that_does_not_pack(outcome_of):
    assert outcome_of("packing") == Outcome(None, "the run neither packs nor is padding_free")


def test_a_model_that_leaks_is_found_out(outcome_of, monkeypatch):
    refused = outcome_of("packing", packing=True, model_name_or_path="ftk://random/mamba")
    assert refused.passed is False
    assert "does not keep the texts of a row apart" in refused.said
    monkeypatch.setattr(fitting, "refuse_leaks", lambda trainer: None)
    assert outcome_of("packing", packing=True, model_name_or_path="ftk://random/mamba").passed is False


# resume


def test_resumed_equals_uninterrupted(outcome_of):
    assert outcome_of("resume", lora_dropout=0.3).passed


@pytest.mark.needs("ftk-grpo", "ftk-rewards")
def test_groups_of_answers_stay_whole(outcome_of):
    settings = {"stage": "grpo", "num_generations": 4, "per_device_train_batch_size": 4, "max_new_tokens": 4}
    assert outcome_of("resume", **settings, reward_funcs="length", reward_length=3).passed


def test_a_forgotten_optimizer_is_found_out(outcome_of, monkeypatch):
    monkeypatch.setattr(ExactTrainer, "_load_optimizer_and_scheduler", lambda self, checkpoint: None)
    assert outcome_of("resume").passed is False


def test_checkpoints_without_optimizer_are_not_resumed(outcome_of):
    assert outcome_of("resume", save_only_model=True) == Outcome(None, "save_only_model: true gives that up")


# merged


@pytest.mark.parametrize("way", ["lora", "full"])
def test_what_is_loaded_is_what_was_trained(way, outcome_of):
    assert outcome_of("merged", finetuning_type=way).passed


def test_an_adapter_saved_with_another_scale_is_found_out(outcome_of, monkeypatch):
    save = checkpoints.save_weights

    def louder(trainer, folder, *arguments):
        save(trainer, folder, *arguments)
        path = f"{folder}/adapter_config.json"
        with open(path) as file:
            content = json.load(file)
        with open(path, "w") as file:
            json.dump({**content, "lora_alpha": 2 * content["lora_alpha"]}, file)

    monkeypatch.setattr(checkpoints, "save_weights", louder)
    assert outcome_of("merged").passed is False


# loss


@pytest.mark.parametrize("settings", [{}, {"label_smoothing_factor": 0.1}, {"bf16": True}])
def test_the_loss_is_the_formula(settings, outcome_of):
    assert outcome_of("loss", **settings).passed


def test_a_patch_that_changes_the_loss_is_found_out(outcome_of, fake_plugin):
    fake_plugin("zz-broken", BROKEN)
    found = outcome_of("loss", zz_dear=True)
    assert found.passed is False
    assert "9." in found.said or "1.0e-01" in found.said


def test_it_does_not_apply_to_a_loss_that_only_its_plugin_knows(outcome_of, fake_plugin):
    fake_plugin("zz-stage", OF_A_STAGE)
    found = outcome_of("loss", stage="zz-stage")
    assert found == Outcome(None, "stage zz-stage has a loss of its own here, whose formula only its plugin knows")


# inference


@pytest.mark.parametrize("template", ["chatml", "llama3", None])
def test_the_trained_text_is_the_inferred_text(template, outcome_of):
    found = outcome_of("inference", template=template)
    assert found.passed, found


def test_a_template_whose_stop_is_not_trained_is_found_out(outcome_of, fake_plugin):
    fake_plugin("zz-broken", BROKEN)
    found = outcome_of("inference", template="zz-endless")
    assert found.passed is False
    assert "at which the engine does not stop" in found.said


def test_a_prompt_that_training_does_not_know_is_found_out(outcome_of):
    found = outcome_of("inference", template="deepseekr1_distill")
    assert found.passed is False
    assert "no prompt has" in found.said
    assert "<think>" in found.details[1]


# the command


def test_the_command_shows_a_table_and_says_it_with_its_exit_code(ftk_cli, config, fake_plugin):
    fake_plugin("zz-broken", BROKEN)
    good = ftk_cli("verify", config(), "--only", "inference", "--only", "packing")
    assert good.exit_code == 0, good.output
    assert "passed" in good.stdout
    assert "not tried" in good.stdout
    bad = ftk_cli("verify", config(), "--template", "zz-endless", "--only", "inference", "--json")
    assert bad.exit_code == 1
    (found,) = json.loads(bad.stdout)
    assert (found["name"], found["passed"], found["tolerance"]) == ("inference", False, "exact")
    table = ftk_cli("verify", config(), "--template", "zz-endless", "--only", "inference")
    assert "FAILED" in table.stdout
    assert found["mend"] in table.stdout


def test_mistakes_of_the_user_are_one_line(ftk_cli, config):
    wrong = ftk_cli("verify", config(), "--only", "lost")
    assert wrong.exit_code == 2
    assert "--only lost: is no check. Did you mean loss?" in wrong.stderr
    assert ftk_cli("verify", config(), "--lora_rnak", "3").exit_code == 2


def test_a_stage_brings_its_own_check(ftk_cli, config, fake_plugin):
    fake_plugin("zz-stage", OF_A_STAGE)
    found = json.loads(ftk_cli("verify", config(stage="zz-stage"), "--only", "zz-loss", "--json").stdout)
    assert [(one["name"], one["passed"]) for one in found] == [("zz-loss", False)]
    (other,) = json.loads(ftk_cli("verify", config(), "--only", "zz-loss", "--json").stdout)
    assert (other["passed"], other["found"]) == (None, "it is about runs with trainer:zz-stage")
