"""A run that gets SIGTERM or SIGINT. Reference: the same run, undisturbed, and the exit codes of POSIX shells.

Real processes: one imports torch once and forks a child for each start, which does what ``ftk run`` does. The parent
reads what the child says and sends a signal when it has said a given text.
"""

import json
import signal
import subprocess
import sys

import pytest
import yaml
from ftk import rundir
from ftk_training import checkpoints

TIMES = ("seconds", "tokens_per_second", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second")
SETTINGS = {
    "model_name_or_path": "ftk://random/llama?attention_dropout=0.1",
    "finetuning_type": "full",
    "template": "chatml",
    "dataset": "rows.json",
    "output_dir": "out",
    "max_steps": 40,
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 2,
    "logging_steps": 1,
    "save_strategy": "no",
    "save_only_model": True,
    "use_cpu": True,
    "plot_loss": False,
}
FORKED = """
import json, os, signal, sys, time
import torch
torch.set_num_threads(1)
import ftk_training.fitting, ftk_hf.loading, transformers.models.llama.modeling_llama
from ftk.cli import main

def start(words):
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(theirs, 1); os.dup2(theirs, 2)
        sys.argv = ["ftk", *words]
        try:
            main(prog_name="ftk")
        except SystemExit as end:
            sys.stdout.flush()
            os._exit(end.code or 0)
    os.close(theirs)
    return child, ours

for case in json.loads(sys.argv[1]):
    said, signals = b"", [(text.encode(), number, pause) for text, number, pause in case["signals"]]
    child, ours = start(case["words"])
    while chunk := os.read(ours, 4096):
        said += chunk
        while signals and signals[0][0] in said:
            time.sleep(signals[0][2])
            os.kill(child, signals.pop(0)[1])
    print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said.decode()]), flush=True)
    os.close(ours)
"""


TERM, INTERRUPT = int(signal.SIGTERM), int(signal.SIGINT)
CASES = {
    "whole": (["--output_dir", "whole"], []),
    "first": ([], [["step 2/", TERM, 0]]),
    "second": ([], [["step 20/", INTERRUPT, 0]]),
    "third": ([], []),
    "loading": (["--output_dir", "loading"], [["rows, ", TERM, 0]]),
    "loaded": (["--output_dir", "loading"], []),
    "stopped": (["--output_dir", "stopped"], [["step 3/", INTERRUPT, 0]]),
    "twice": (
        ["--output_dir", "twice", "--dataset", "many.json", "--gradient_accumulation_steps", "4000"],
        [["rows, ", TERM, 3], ["a checkpoint is written", TERM, 0.1], ["a checkpoint", TERM, 1.2]],
    ),
}
"""Name → words after ``ftk run run.yaml``, and signals: when the run has said a text, which one, seconds later."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder, and name of each case → exit code and output."""
    folder = tmp_path_factory.mktemp("runs")
    rows = [{"instruction": "count " * (1 + n % 3), "output": "one two " * (1 + n)} for n in range(7)]
    (folder / "rows.json").write_text(json.dumps(rows))
    (folder / "many.json").write_text(json.dumps(rows * 600))
    (folder / "run.yaml").write_text(yaml.safe_dump(SETTINGS))
    told = [{"words": ["run", "run.yaml", *words], "signals": signals} for words, signals in CASES.values()]
    command = [sys.executable, "-c", FORKED, json.dumps(told)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return folder, dict(zip(CASES, found, strict=True))


def log_of(folder):
    lines = [json.loads(line) for line in (folder / "trainer_log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


def record_of(folder):
    return json.loads((folder / "run.json").read_text())


def test_the_first_signal_saves_a_checkpoint_and_the_same_command_goes_on_exactly(runs):
    """Also where nothing else is saved, and where checkpoints are to be without what a resume needs."""
    folder, found = runs
    assert [found[name][0] for name in ("whole", "first", "second", "third")] == [0, 143, 130, 0]
    for name, signal_name in (("first", "SIGTERM"), ("second", "SIGINT")):
        said = found[name][1]
        assert said.splitlines()[-1].startswith(f"error: {signal_name}: stopped after step ")
        assert said.endswith(" is saved. The same command goes on from there\n")
        assert f"{signal_name}: a checkpoint is written after this step" in said
        assert "Traceback" not in said
    assert log_of(folder / "out") == log_of(folder / "whole")
    weights = [(folder / name / "model.safetensors").read_bytes() for name in ("out", "whole")]
    assert weights[0] == weights[1]
    saved = [int(path.name.split("-")[1]) for path in checkpoints.checkpoints_of(folder / "out")]
    assert 2 <= saved[0] < 20 <= saved[1] < 40


def test_a_stopped_run_is_recorded_as_interrupted(runs):
    folder, found = runs
    code, said = found["stopped"]
    record = record_of(folder / "stopped")
    assert (code, record["status"]) == (130, "interrupted")
    assert record["error"] in said
    (checkpoint,) = checkpoints.checkpoints_of(folder / "stopped")
    assert rundir.damage(checkpoint) == ""
    assert (checkpoint / "optimizer.pt").exists()


def test_nothing_is_lost_before_the_first_step(runs):
    folder, found = runs
    (code, said), (again, _) = found["loading"], found["loaded"]
    assert (code, again) == (143, 0)
    assert said.splitlines()[-1].startswith("error: SIGTERM: stopped. The same command goes on")
    assert log_of(folder / "loading") == log_of(folder / "whole")


def test_a_second_signal_ends_the_process_at_once(runs):
    """The first one waits for a step that takes minutes; within a second it counts as the same."""
    folder, found = runs
    code, said = found["twice"]
    assert code == 143
    assert said.splitlines()[-1].startswith("error: SIGTERM: stopped. The same command goes on")
    assert "step 1/" not in said
    assert record_of(folder / "twice")["status"] == "interrupted"
