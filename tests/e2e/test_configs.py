"""Every file in configs/ resolves to a plan, and the quickstart does what the README says."""

import json
from itertools import islice
from pathlib import Path

import pytest
from click.testing import CliRunner
from ftk.cli import main
from ftk.opening import open_run, plan_run
from ftk.run import Run

CONFIGS = Path(__file__).parents[2] / "configs"


NEEDS = {
    "llama3-galore.yaml": ["ftk-galore"], "llava-lora.yaml": ["ftk-vlm"],
    "qwen3-new-tokens.yaml": ["ftk-new-tokens", "ftk-dora", "ftk-loraplus"], "qwen3-qlora.yaml": ["ftk-bnb"],
    "qwen3-long-context.yaml": ["ftk-longlora", "ftk-rope-scaling"],
}  # fmt: skip
"""What a config shows, as far as the rest of ftk can do without it."""
EACH_CONFIG = [
    pytest.param(path, id=path.name, marks=pytest.mark.needs(*NEEDS.get(path.name, [])))
    for path in sorted(CONFIGS.rglob("*.yaml"))
]
COMMANDS = {"eval": "eval", "export": "export"}
"""Folder of configs → the command that they are for, where that is not ``ftk run``."""


@pytest.fixture
def every_back_end(monkeypatch):
    """What a plugin's extra brings counts as installed, so that recipes for it are checked, too."""
    monkeypatch.setattr("ftk.plugins._is_installed", lambda package: True)


@pytest.mark.parametrize("path", EACH_CONFIG)
def test_every_config_is_a_plan(path, every_back_end):
    command = COMMANDS.get(path.parent.name)
    if command:
        assert open_run(command, str(path)).plan.notes == ()
        return
    plan = plan_run(str(path), [])
    assert plan.one("trainer") is not None
    assert plan.notes == ()


@pytest.mark.parametrize("path", EACH_CONFIG)
def test_the_rows_of_a_config_can_be_read(path, every_back_end):
    """As long as they come with it; what ``ftk eval`` and ``ftk export`` read does not."""
    if path.parent.name in COMMANDS:
        pytest.skip("no data set of rows")
    run = Run(plan_run(str(path), []))
    examples = [dataset.convert(row) for split in ("train", "eval") for dataset in run.datasets(split)
                for row in islice(dataset.open(), 3)]  # fmt: skip
    assert examples
    assert None not in examples


def test_the_quickstart_teaches_the_tiny_model_something(tmp_path, monkeypatch):
    """The README's main job, from another folder, with fewer epochs: ``.ci/run`` does it as a user would type it."""
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["run", str(CONFIGS / "quickstart.yaml"), "--num_train_epochs", "4"])
    assert result.exit_code == 0, result.output
    out = tmp_path / "saves" / "quickstart"
    log = [json.loads(line) for line in (out / "trainer_log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in log if "loss" in line]
    assert losses[-1] < losses[0] / 3
    assert json.loads((out / "run.json").read_text())["status"] == "finished"
    for name in ("data_report.json", "training_loss.png", "README.md", "adapter_model.safetensors", "tokenizer.json"):
        assert (out / name).exists(), name
    ask = ["chat", str(out), "--prompt", "What is ftk?", "--do_sample", "false"]
    learnt = CliRunner().invoke(main, ask)
    before = CliRunner().invoke(main, [*ask, "--base"])
    assert learnt.exit_code == before.exit_code == 0
    assert "plugin" in learnt.stdout
    assert learnt.stdout != before.stdout
