"""What tests of optimizers share: real runs, interrupted, against the same run that nobody disturbed.

The first kind of interruption leaves a run directory as a kill leaves it; the second is a process that gets SIGKILL in
the middle of a step. Numbers, weights and the saved state have to be the same, bit for bit.
"""

import json
import shutil
import subprocess
import sys

import pytest

SETTINGS = {
    "model_name_or_path": "ftk://random/llama?num_hidden_layers=3&attention_bias=true",
    "finetuning_type": "full",
    "template": "chatml",
    "max_steps": 9,
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 2,
    "logging_steps": 2,
    "save_strategy": "steps",
    "save_steps": 4,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 2,
    "weight_decay": 0.1,
}
TIMES = ("seconds", "tokens_per_second")
WEIGHTS = ("model.safetensors", "adapter_model.safetensors")

KILLED = """
import json, os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from ftk.run import execute
from ftk.testing.runs import plan_in
from ftk_training.trainer import ExactTrainer

training_step = ExactTrainer.training_step

def killed(trainer, *arguments):
    loss = training_step(trainer, *arguments)
    if trainer.state.global_step == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    return loss

ExactTrainer.training_step = killed
execute(plan_in(Path.cwd(), **json.loads(sys.argv[1])))
"""


@pytest.fixture(autouse=True)
def one_thread():
    """Sums over another number of threads round differently."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def settings_of(tmp_path):
    """``settings_of(key=value, ...)``: those of a small run whose epochs end in the middle of everything."""
    rows = [{"instruction": "count " * (1 + n % 3), "output": "one two " * (1 + n)} for n in range(7)]
    (tmp_path / "uneven.json").write_text(json.dumps(rows))
    return lambda **more: {**SETTINGS, "dataset": str(tmp_path / "uneven.json"), **more}


@pytest.fixture
def train(ftk_run, settings_of):
    """``train(key=value, ...)``: such a run; gives its folder."""
    return lambda **more: ftk_run(**settings_of(**more)).folder


@pytest.fixture
def losses_of():
    return lambda folder: [line["loss"] for line in _log(folder) if "loss" in line]


@pytest.fixture
def resumes_exactly(train):
    """``resumes_exactly(key=value, ...)``: trains, goes back to the checkpoint of step 4, trains on; gives the log."""
    import torch

    def check(**more):
        folder = train(**more)
        wanted = _result(folder)
        shutil.rmtree(folder / "checkpoint-8")
        shutil.rmtree(folder / "checkpoint-9")
        torch.load(folder / "checkpoint-4" / "optimizer.pt", weights_only=True)
        record = json.loads((folder / "run.json").read_text())
        (folder / "run.json").write_text(json.dumps({**record, "status": "running"}))
        _same(_result(train(**more)), wanted)
        return wanted[0]

    return check


@pytest.fixture
def survives_a_kill(train, settings_of, tmp_path):
    """``survives_a_kill(key=value, ...)``: a process gets SIGKILL within step 7, and the same run is started again."""

    def check(**more):
        wanted = _result(train(**more, output_dir=str(tmp_path / "undisturbed")))
        command = [sys.executable, "-c", KILLED, json.dumps(settings_of(**more))]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == -9, done.stderr[-2000:]
        assert [path.name for path in (tmp_path / "out").glob("checkpoint-*")] == ["checkpoint-4"]
        _same(_result(train(**more)), wanted)

    return check


def _log(folder):
    lines = [json.loads(line) for line in (folder / "trainer_log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


def _same(result, wanted):
    for line, other in zip(result[0], wanted[0], strict=True):
        assert line == other
    assert result[1] == wanted[1], "the weights differ"
    assert result[2] == wanted[2], "the state of the optimizer differs"


def _result(folder):
    """(log, weights, optimizer state) of a finished run."""
    weights = next(folder / name for name in WEIGHTS if (folder / name).exists())
    return _log(folder), weights.read_bytes(), (folder / "checkpoint-9" / "optimizer.pt").read_bytes()
