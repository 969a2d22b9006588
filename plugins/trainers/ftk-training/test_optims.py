"""Every ``optim`` of transformers trains here and resumes exactly, or one line says before a model is loaded why not.

Reference: transformers' own list of names. Which ones run follows from what is installed, so another environment tries
others.
"""

import json
import shutil

import pytest
import torch
from ftk import CheckpointError, ConfigError
from ftk.run import Run
from ftk.testing.runs import plan_in
from ftk_training.arguments import make_arguments
from ftk_training.optims import OPTIMS
from transformers.training_args import OptimizerNames

NAMES = [one.value for one in OptimizerNames]
SETTINGS = {
    "finetuning_type": "full",
    "template": "chatml",
    "max_steps": 5,
    "per_device_train_batch_size": 1,
    "save_strategy": "steps",
    "save_steps": 3,
    "max_grad_norm": 0,
    "learning_rate": 5e-3,
    "lr_scheduler_type": "constant",
}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def refusal(tmp_path, **settings):
    """What the run says before it loads a model; empty when it would begin."""
    run = Run(plan_in(tmp_path, **settings))
    try:
        make_arguments(run)
    except ConfigError as error:
        return str(error)
    return ""


def log_of(folder):
    lines = [json.loads(line) for line in (folder / "trainer_log.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"], line.get("grad_norm")) for line in lines if "loss" in line]


def test_the_table_holds_every_name_of_transformers():
    assert set(NAMES) <= set(OPTIMS), "run it and add what it needs to ftk_training/optims.py"


@pytest.mark.parametrize("name", NAMES)
def test_an_optimizer_trains_and_resumes_exactly_or_says_why_not(ftk_run, tmp_path, name):
    settings = {**SETTINGS, "optim": name}
    if said := refusal(tmp_path, **settings):
        assert f"optim: {name}: " in said
        assert "\n" not in said
        needs = OPTIMS[name]
        assert needs.module in said or needs.forgets in said or needs.broken in said or "needs a GPU" in said
        return
    folder = ftk_run(**settings).folder
    wanted, weights = log_of(folder), (folder / "model.safetensors").read_bytes()
    assert wanted[-1][1] < wanted[0][1]
    shutil.rmtree(folder / "checkpoint-5")
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**record, "status": "running"}))
    folder = ftk_run(**settings).folder
    assert log_of(folder) == wanted
    assert (folder / "model.safetensors").read_bytes() == weights


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"optim": "adamw_trch"}, r"optim: adamw_trch: is no optimizer. Did you mean adamw_torch\?"),
        (
            {"optim": "galore_adamw"},
            "cannot go on from its checkpoints: .* Take use_galore: true, or set save_only",
        ),
        ({"optim": "galore_adafactor_layerwise"}, "Take use_galore and galore_layerwise: true with optim: adafactor"),
        ({"optim": "apollo_adamw_layerwise"}, "Take use_apollo and apollo_layerwise: true"),
    ],
)
def test_what_can_be_taken_instead_is_said(tmp_path, settings, line):
    with pytest.raises(ConfigError, match=line):
        make_arguments(Run(plan_in(tmp_path, save_strategy="steps", **settings)))


@pytest.mark.parametrize(
    ("name", "more", "line"),
    [
        ("paged_ademamix_8bit", {}, "needs a GPU. Take ademamix_8bit on the CPU"),
        ("galore_adamw", {"save_only_model": True}, "needs optim_target_modules, for instance all-linear"),
        ("lomo", {"gradient_accumulation_steps": 2}, "cannot accumulate gradients. Set gradient_accumulation_steps: 1"),
    ],
)
def test_with_its_package_installed_an_optimizer_says_what_else_it_needs(tmp_path, monkeypatch, name, more, line):
    monkeypatch.setattr("ftk_training.optims.find_spec", lambda _: object())
    assert line in refusal(tmp_path, optim=name, **more)


def test_an_optimizer_whose_package_is_missing_says_what_to_type(tmp_path, monkeypatch):
    monkeypatch.setattr("ftk_training.optims.find_spec", lambda _: None)
    said = refusal(tmp_path, optim="schedule_free_adamw")
    assert said.endswith(
        "optim: schedule_free_adamw: needs schedulefree, which is not installed: pip install schedulefree"
    )


def test_arguments_that_an_optimizer_does_not_take_are_one_line(ftk_run):
    with pytest.raises(ConfigError, match="optim: sgd: ") as caught:
        ftk_run(optim="sgd", optim_args="momentum=much", finetuning_type="full", template="chatml")
    assert "\n" not in str(caught.value)


OWN_WEIGHTS = """
import torch
import ftk

class Averaged(torch.optim.SGD):
    answering = False

    def train(self):
        self.move(False)

    def eval(self):
        self.move(True)

    def move(self, answering):
        if answering != self.answering:
            self.answering = answering
            with torch.no_grad():
                for group in self.param_groups:
                    for weight in group["params"]:
                        weight.add_(1.0 if answering else -1.0)

@ftk.options
class AveragedOptions:
    use_averaged: bool = ftk.option(False, help="Trains with weights that are not those that answer.")

def build(model, run):
    return Averaged(model.parameters(), lr=0.0)

def check(run):
    if run.value("learning_rate") > 1:
        raise ftk.ConfigError("learning_rate: too high for this one")

build.check = check

@ftk.hookimpl
def ftk_optimizers():
    yield ftk.Optimizer("averaged", target="ftk_averaged:build", options=AveragedOptions, switch="use_averaged")
"""


def test_evaluations_checkpoints_and_results_have_the_weights_that_answer(ftk_run, tmp_path, fake_plugin):
    """As with schedule-free optimizers, which are told when to put which weights into the model: here one more."""
    from safetensors.torch import load_file

    fake_plugin("averaged", OWN_WEIGHTS)
    settings = {**SETTINGS, "learning_rate": 0.0, "eval_strategy": "steps", "eval_steps": 2, "val_size": 1}
    plain = ftk_run(**settings, optim="sgd", output_dir=str(tmp_path / "plain")).folder
    start = load_file(plain / "model.safetensors")
    folder = ftk_run(**settings, use_averaged=True).folder
    for name in ("model.safetensors", "checkpoint-3/model.safetensors"):
        for key, weight in load_file(folder / name).items():
            torch.testing.assert_close(weight, start[key] + 1, msg=f"{name} {key}", atol=1e-4, rtol=0)
    lines = [json.loads(line) for line in (folder / "trainer_log.jsonl").read_text().splitlines()]
    trained = [line["loss"] for line in lines if "loss" in line]
    evaluated = [line["eval_loss"] for line in lines if "eval_loss" in line]
    assert abs(evaluated[0] - trained[0]) > 0.1


def test_a_checkpoint_of_another_optimizer_is_refused_in_one_line(ftk_run, fake_plugin):
    fake_plugin("averaged", OWN_WEIGHTS)
    folder = ftk_run(**{**SETTINGS, "learning_rate": 0.0}, use_averaged=True).folder
    with pytest.raises(CheckpointError, match="checkpoint-3: was made by another optimizer") as caught:
        ftk_run(**SETTINGS, resume_from_checkpoint=str(folder / "checkpoint-3"))
    assert "\n" not in str(caught.value)


def test_an_optimizer_of_a_plugin_is_asked_before_a_model_is_loaded(tmp_path, fake_plugin, caplog):
    fake_plugin("averaged", OWN_WEIGHTS)
    with caplog.at_level("WARNING", logger="ftk"):
        assert refusal(tmp_path, use_averaged=True, optim="galore_adamw") == ""
    assert "optim: galore_adamw: has no effect, use_averaged decides" in caplog.text
    assert refusal(tmp_path, use_averaged=True, learning_rate=2.0) == "learning_rate: too high for this one"
