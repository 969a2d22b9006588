"""A rehearsal of a sound config goes through; of a broken one it ends with the line with which the run would end.

The reference of each broken config is ``ftk run`` itself.
"""

import json
import shutil

import pytest
import yaml
from ftk.opening import open_run
from ftk.registry import Registry
from ftk.testing import run_in
from ftk_verify import disk, small_model

ROWS = [{"instruction": f"Say {word}.", "input": "", "output": f"{word}, {word}"} for word in "abcdefghijklmnop"]
SETTINGS = {
    "model_name_or_path": "ftk://random/llama", "stage": "sft", "template": "chatml", "finetuning_type": "lora",
    "cutoff_len": 128, "learning_rate": 1e-3, "use_cpu": True, "max_steps": 2, "logging_steps": 1, "plot_loss": False,
}  # fmt: skip
TRACKER = '''
"""A tracker that may not be started."""
import ftk

@ftk.hookimpl
def ftk_trackers():
    yield ftk.Tracker("zz-loud", target="ftk_zz_loud:start", summary="Loud")

@ftk.hookimpl
def ftk_chat_templates():
    yield ftk.ChatTemplate("zz-endless", user="[{content}]", assistant="{content}", summary="Trains no stop token")

def start(run):
    raise RuntimeError("something was sent")
'''


@pytest.fixture
def config(tmp_path):
    """``config(key=value)``: a YAML with settings over small ones."""

    def write(**settings):
        rows, path = tmp_path / "rows.json", tmp_path / "run.yaml"
        rows.write_text(json.dumps(ROWS))
        made = {**SETTINGS, "dataset": str(rows), "output_dir": str(tmp_path / "mine" / "out"), **settings}
        path.write_text(yaml.safe_dump(made))
        return str(path)

    return write


def test_a_sound_config_goes_through_all_of_it(ftk_cli, config, tmp_path, fake_plugin):
    fake_plugin("zz-loud", TRACKER)
    settings = {"eval_strategy": "steps", "eval_steps": 1, "val_size": 2, "save_steps": 1, "report_to": "zz-loud"}
    result = ftk_cli("run", config(**settings), "--rehearse")
    assert result.exit_code == 0, result.output
    for part in ("plan", "output_dir", "arguments", "model", "disk", "train, evaluate, save", "resume", "reload",
                 "answer", "inference", "export"):  # fmt: skip
        assert f"\n  {part} " in result.stdout, part
    assert "eval_loss" in result.stdout
    assert "All of it works, in " in result.stdout
    assert "Not tried: trackers, nothing is sent anywhere; " in result.stdout
    assert not (tmp_path / "mine").exists()


def test_weights_are_not_read(ftk_cli, config, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(open_run("chat", None, ["--model_name_or_path", "ftk://random/qwen2"]).model_path, model)
    (model / "model.safetensors").write_bytes(b"no numbers")
    result = ftk_cli("rehearse", config(model_name_or_path=str(model), finetuning_type="full"))
    assert result.exit_code == 0, result.output
    assert "qwen2 with 2 layers" in result.stdout


BROKEN = {
    "metric": {
        "metric_for_best_model": "nonsense", "load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 1,
        "save_steps": 1, "val_size": 2,
    },
    "rows of evaluation": {"eval_dataset": "bad.json", "eval_strategy": "steps"},
    "folder": {"output_dir": "rows.json/out"},
    "push": {"push_to_hub": True},
    "target": {"lora_target": "q_projj"},
    "schedule": {"lr_scheduler_type": "cosinee"},
    "intervals": {
        "load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 3, "save_steps": 4, "val_size": 2,
    },
    "optimizer": {"optim": "no_such_optim"},
    "key": {"lora_rnak": 8},
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_config_ends_with_the_line_of_the_run(what, ftk_cli, config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    (tmp_path / "bad.json").write_text('[{"instruction": "a", "output": 3}]')
    path = config(**BROKEN[what])
    rehearsed = ftk_cli("run", path, "--rehearse")
    assert rehearsed.exit_code == 2, rehearsed.output
    run = ftk_cli("run", path)
    lines = [[line for line in one.stderr.splitlines() if line.startswith("error: ")] for one in (rehearsed, run)]
    assert lines[0]
    assert lines[0] == lines[1]


def test_a_template_without_a_stop_is_found_out(ftk_cli, config, fake_plugin):
    fake_plugin("zz-loud", TRACKER)
    result = ftk_cli("run", config(template="zz-endless"), "--rehearse")
    assert result.exit_code == 2
    assert "inference: the last trained token is" in result.stderr


def test_a_full_disk_is_found_out(ftk_cli, config, monkeypatch):
    usage = shutil.disk_usage
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: usage(path)._replace(free=1000))
    result = ftk_cli("run", config(finetuning_type="full", save_total_limit=2), "--rehearse")
    assert result.exit_code == 2
    assert "are free. Set save_total_limit or save_only_model: true" in result.stderr


@pytest.mark.parametrize("way", ["lora", "full"])
def test_the_room_on_the_disk_is_what_a_run_takes(way, tmp_path, config):
    finished = run_in(tmp_path, finetuning_type=way, save_strategy="steps", save_steps=1, save_total_limit=2)
    model, adapter = disk.at_full_size(config(finetuning_type=way), ["--train_from_scratch=true"])
    plan = finished.plan
    one, result, count = disk.needed(plan, model, adapter)
    folder = finished.folder / "checkpoint-2"
    taken = sum((folder / name).stat().st_size for name in ("optimizer.pt", *_weights(folder)))
    assert one == pytest.approx(taken, rel=0.05, abs=40_000)  # what torch.save writes beside the numbers
    assert result == pytest.approx(
        sum((finished.folder / name).stat().st_size for name in _weights(folder)), rel=0.05, abs=5_000
    )
    assert count == 3


def _weights(folder):
    return [file.name for file in folder.glob("*.safetensors")]


def test_where_no_narrow_model_works_the_width_stays(config, tmp_path, monkeypatch):
    shrunk = small_model.shrunk

    def refusing(config, least):
        if least != 1:
            raise ValueError("not so narrow")
        return shrunk(config, least)

    monkeypatch.setattr(small_model, "shrunk", refusing)
    path = config(model_name_or_path="ftk://random/llama?num_hidden_layers=5&hidden_size=96")
    said = small_model.make(path, [], Registry.discover(), tmp_path / "small", 64)
    assert said.startswith("llama with 2 layers")
    assert json.loads((tmp_path / "small" / "config.json").read_text())["hidden_size"] == 96
