"""``ftk runs``. Reference: run directories written here by hand, and one that a real run leaves."""

import json
import os
import time

import pytest
from click.testing import CliRunner
from ftk.cli import main
from ftk_runs import comparing, reading
from matplotlib import image


def write(folder, losses=(3.0, 2.0, 1.0), status="finished", age=0.0, evaluated=None, **options):
    """A run directory: its losses, one for each step."""
    folder.mkdir(parents=True)
    record = {
        "status": status,
        "started": f"2026-01-02T03:04:{len(list(folder.parent.iterdir())):02d}+00:00",
        "options": {"model_name_or_path": "hub/tiny", "learning_rate": 1e-4, "output_dir": str(folder), **options},
        "chosen": {"trainer": ["sft"], "adapter": ["lora"]},
        "plugins": {"ftk-sft": "0.1.0"},
        "libraries": {"torch": "2.9"},
        "data": {"rows": {"fingerprint": "abc", "num_rows": 7}},
        "files": ["adapter_model.safetensors"],
    }
    if status == "finished":
        record["metrics"] = {"train_loss": sum(losses) / len(losses), "train_runtime": 4000.0, "eval_loss": losses[-1]}
    if status == "failed":
        record["error"] = "step 3: the loss is nan"
    (folder / "run.json").write_text(json.dumps(record))
    lines = [
        {"step": step, "total_steps": 3, "loss": loss, "seconds": 20.0 * step}
        for step, loss in enumerate(losses, start=1)
    ]
    (folder / "trainer_log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 9')
    (folder / "checkpoint-2").mkdir()
    (folder / "checkpoint-10").mkdir()
    for path in folder.iterdir():
        os.utime(path, (time.time() - age,) * 2)
    return folder


def ask(*words):
    done = CliRunner().invoke(main, ["runs", *map(str, words)], env={"COLUMNS": "200"})
    return done.exit_code, done.output


@pytest.fixture
def saves(tmp_path):
    write(tmp_path / "saves" / "b" / "first")
    write(tmp_path / "saves" / "second", losses=(3.0, 2.5), status="running", age=7300, learning_rate=2e-4, seed=7)
    write(tmp_path / "saves" / "third", losses=(3.0,), status="failed", lora_rank=4)
    return tmp_path / "saves"


def test_runs_are_listed_by_their_start_with_status_and_losses(saves):
    code, said = ask("list", saves)
    assert code == 0
    lines = said.splitlines()[1:]
    assert [line.split()[0].rpartition("/")[2] for line in lines] == ["first", "second", "third"]
    assert "finished" in lines[0]
    assert "sft lora" in lines[0]
    assert "3 → 1" in lines[0]
    assert "1 h 06 min" in lines[0]
    assert "silent for 2 h 01 min" in lines[1]
    assert "2/3" in lines[1]
    assert "failed" in lines[2]


def test_a_list_for_programs_has_the_same_numbers(saves):
    found = json.loads(ask("list", saves, "--json")[1])
    assert [one["last_loss"] for one in found] == [1.0, 2.5, 3.0]
    assert found[0]["checkpoints"] == ["checkpoint-2", "checkpoint-10"]
    assert found[0]["folder"] == str(saves / "b" / "first")
    assert json.loads(ask("show", saves / "third", "--json")[1])["options"]["lora_rank"] == 4


def test_one_run_is_shown_with_what_it_was_and_what_came_out(saves):
    code, said = ask("show", saves / "third")
    assert code == 0
    for text in (
        "failed: step 3: the loss is nan",
        "rows, 7 rows",
        "lora_rank",
        "checkpoint-2, checkpoint-10",
        "0.1.0",
    ):
        assert text in said
    assert "the steps are 1 of 3" not in said
    code, said = ask("show", saves)
    assert code == 2
    assert "holds 3 runs" in said


def test_the_differences_of_runs_are_options_and_results(saves):
    code, said = ask("diff", saves / "b" / "first", saves / "second", saves / "third", "--json")
    assert code == 0
    found = json.loads(said)
    assert found["runs"] == ["first", "second", "third"]
    assert found["options"] == {
        "learning_rate": {"first": 1e-4, "second": 2e-4, "third": 1e-4},
        "lora_rank": {"first": None, "second": None, "third": 4},
        "seed": {"first": None, "second": 7, "third": None},
    }
    assert found["features"] == found["versions"] == found["data"] == {}
    assert found["metrics"]["eval_loss"] == {"first": 1.0, "second": None, "third": None}
    assert found["metrics"]["loss"] == {"first": None, "second": 2.5, "third": 3.0}
    said = ask("diff", saves)[1]
    assert "data: no difference" in said
    assert next(line for line in said.splitlines() if line.startswith("seed")).split() == [
        "seed",
        "default",
        "7",
        "default",
    ]


def test_times_stand_behind_losses_and_where_a_run_writes_is_no_difference(saves):
    runs = reading.find([str(saves)])
    assert [name for name, _ in comparing.metrics_of(runs)] == ["eval_loss", "loss", "train_loss", "train_runtime"]
    assert "output_dir" not in dict(comparing.compared(runs)["options"])


def test_the_curves_of_all_runs_are_one_picture(saves, tmp_path):
    out = tmp_path / "curves.png"
    code, said = ask("plot", saves, "-o", out)
    assert (code, said) == (0, f"{out}: loss of 3 runs\n")
    height, width, _ = image.imread(out).shape
    assert (height, width) == (540, 960)
    code, said = ask("plot", saves, "--metric", "reward", "-o", out)
    assert code == 2
    assert "--metric reward: none of the runs has logged it. There is loss, seconds" in said


@pytest.mark.parametrize("words", [("list", "nowhere"), ("list", "."), ("diff", "saves/second")])
def test_what_is_no_run_is_said_in_one_line(saves, monkeypatch, words):
    monkeypatch.chdir(saves.parent)
    (saves.parent / "empty").mkdir()
    if words == ("list", "."):
        monkeypatch.chdir(saves.parent / "empty")
    code, said = ask(*words)
    assert code == 2
    assert len(said.splitlines()) == 1
    assert said.startswith("error: ")


def test_a_real_run_is_read(ftk_run):
    folder = ftk_run(template="chatml", plot_loss=False).folder
    (found,) = json.loads(ask("list", folder, "--json")[1])
    assert (found["status"], found["step"], found["total_steps"], found["method"]) == ("finished", 2, 2, "sft lora")
    assert found["last_loss"] > 0
    assert "ftk-sft" in ask("show", folder)[1]
