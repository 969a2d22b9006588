"""Bad input: each mistake is one line with exit code 2, and nothing that was there is written over.

The list is the one of LLaMA-Factory's measured failures (raw tracebacks after seconds of imports), one by one.
"""

import json
import os
import subprocess

import pytest
from click.testing import CliRunner
from ftk.cli import main

GOOD = {
    "model_name_or_path": "ftk://random/llama",
    "template": "chatml",
    "dataset": "rows.jsonl",
    "output_dir": "out",
    "cutoff_len": 64,
    "max_steps": 2,
    "learning_rate": 1e-3,
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    rows = [{"instruction": f"Say {word}.", "output": word} for word in ("one", "two", "three", "four")]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_config(place, **changes):
    values = {**GOOD, **changes}
    text = "".join(f"{key}: {json.dumps(value)}\n" for key, value in values.items())
    (place / "run.yaml").write_text(text)


def run(*words):
    return CliRunner().invoke(main, ["run", "run.yaml", *words])


def tree(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def said_by(place, *words):
    """The one line on stderr of a run that must fail and leave everything as it was."""
    before = tree(place)
    result = run(*words)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, result.stderr
    after = tree(place)
    assert {path: after.get(path) for path in before} == before
    return errors[0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"learnin_rate": 1}, "run.yaml:8: learnin_rate: unknown option. Did you mean learning_rate (ftk-training"),
        ({"learning_rate": "1e-4x"}, "run.yaml:7: learning_rate: '1e-4x': input should be a valid number"),
        ({"dataset": "rowz.jsonl"}, "run.yaml:3: dataset: rowz.jsonl is neither a name in"),
        ({"template": "chatmll"}, "run.yaml:2: template: chatmll is not installed. Did you mean chatml?"),
        ({"stage": "sftt"}, "stage: sftt is not installed. Did you mean sft?"),
        ({"per_device_train_batch_size": 0}, "per_device_train_batch_size: 0: input should be greater than"),
        ({"finetuning_type": "lorra"}, "finetuning_type: lorra is not installed. Did you mean lora?"),
        ({"model_name_or_path": "./nowhere"}, "nowhere"),
        ({"lora_target": "q_projj"}, "q_projj"),
    ],
)
def test_a_wrong_setting_is_one_line(place, changes, said):
    write_config(place, **changes)
    assert said in said_by(place)


def test_a_missing_yaml_is_one_line(place):
    assert "run.yaml: cannot be read: No such file or directory" in said_by(place)


def test_yaml_that_does_not_parse_names_line_and_column(place):
    (place / "run.yaml").write_text("a: 1\nb: [1, 2\nc: 3\n")
    assert "run.yaml:3:2: does not parse" in said_by(place)


def test_a_malformed_row_names_data_set_and_line(place):
    with (place / "rows.jsonl").open("a") as file:
        file.write('{"instruction": "x", "output": \n')
    write_config(place)
    message = said_by(place)
    assert "rows.jsonl:5" in message


@pytest.mark.parametrize("value", [3, ["a"], {"a": 1}])
def test_a_value_of_the_wrong_type_names_data_set_line_and_column(place, value):
    with (place / "rows.jsonl").open("a") as file:
        file.write(json.dumps({"instruction": "x", "output": value}) + "\n")
    write_config(place)
    message = said_by(place)
    assert "rows.jsonl:5" in message
    assert "output" in message


def test_a_missing_column_names_the_columns_present(place):
    (place / "rows.jsonl").write_text('{"question": "a", "answer": "b"}\n')
    write_config(place)
    message = said_by(place)
    assert "instruction" in message
    assert "question" in message


def test_bad_rows_can_be_skipped_and_are_counted(place):
    with (place / "rows.jsonl").open("a") as file:
        file.write('{"instruction": "x", "output": 3}\n')
    write_config(place, on_bad_row="skip")
    result = run()
    assert result.exit_code == 0, result.output
    report = json.loads((place / "out" / "data_report.json").read_text())
    assert report["train"]["datasets"]["rows"]["dropped: malformed"] == 1


def test_a_model_folder_without_weights_is_one_line(place):
    (place / "model").mkdir()
    (place / "model" / "config.json").write_text('{"model_type": "llama"}')
    write_config(place, model_name_or_path="./model")
    assert "weights" in said_by(place)


def test_results_of_another_run_are_not_written_over(place):
    write_config(place)
    assert run().exit_code == 0
    assert "out: holds the results of a finished run" in said_by(place)
    assert "--overwrite_output_dir true" in said_by(place, "--learning_rate", "5e-4")
    assert run("--overwrite_output_dir", "true").exit_code == 0


def test_a_foreign_file_in_the_output_folder_stays(place):
    (place / "out").mkdir()
    (place / "out" / "notes.txt").write_text("mine")
    write_config(place)
    assert run().exit_code == 0
    assert run("--overwrite_output_dir", "true").exit_code == 0
    assert (place / "out" / "notes.txt").read_text() == "mine"


def test_a_damaged_checkpoint_falls_back_to_the_one_before(place, caplog):
    write_config(place, max_steps=4, save_steps=1, save_strategy="steps")
    assert run().exit_code == 0
    record = place / "out" / "run.json"
    record.write_text(record.read_text().replace('"finished"', '"running"'))
    (place / "out" / "checkpoint-4" / "trainer_state.json").write_text("{")
    result = run()
    assert result.exit_code == 0, result.output
    lines = [line for line in caplog.messages if "checkpoint-4" in line and "checkpoint-3" in line]
    assert len(lines) == 1, caplog.messages


def test_a_full_disk_during_a_checkpoint_is_one_line_and_earlier_ones_stay(place):
    full = place / "full"
    full.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(full)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small file system can only be mounted by root")
    try:
        often = {"save_steps": 1, "save_strategy": "steps", "max_steps": 200}
        write_config(place, output_dir="full/out", finetuning_type="full", **often)
        result = run()
        assert result.exit_code == 2, result.output
        errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1
        assert "No space left on device" in errors[0]
        from ftk.rundir import damage

        kept = sorted((full / "out").glob("checkpoint-*"))
        assert kept
        assert [damage(folder) for folder in kept] == [""] * len(kept)
    finally:
        subprocess.run(["umount", str(full)], check=True)
        assert not os.path.ismount(full)
