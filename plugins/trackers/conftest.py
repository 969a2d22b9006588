"""What the tests of trackers share: a run without a model, in a process of its own, that can be killed and resumed.

``Tracked(folder).run(report_to=...)`` logs ``loss`` 1/step at every step and ``eval_loss`` 2/step at every second one.
Its process notes each attempt to reach another machine.
"""

import json
import os
import subprocess
import sys

import pytest
from ftk.testing import write_plugin

TRAINER = """
import json, os, signal, time
from pathlib import Path
import ftk
from ftk_training import TrainingOptions

@ftk.options
class StepsOptions:
    steps_to_take: int = ftk.option(6, help="Steps.")
    steps_how: str = ftk.option("", help="kill@N, fail or stop.")
    steps_secret: str | None = ftk.option(None, help="Nobody's business.", secret=True)

def log(run, step, metrics):
    with (run.output_dir / "trainer_log.jsonl").open("a") as file:
        file.write(json.dumps({"step": step, "total_steps": 6, **metrics, "seconds": 1.5}) + "\\n")
    run.log(step, metrics)

def train(run):
    lines = run.output_dir / "trainer_log.jsonl"
    if run.continues:
        kept = [line for line in lines.read_text().splitlines(True) if json.loads(line)["step"] < 3]
        lines.write_text("".join(kept))
    how = os.environ.get("STEPS_HOW", "")
    first = 3 if run.continues else 1
    for step in range(first, run.options(StepsOptions).steps_to_take + 1):
        log(run, step, {"loss": 1 / step, "learning_rate": 1e-3, "epoch": step / 6, "name": "no number"})
        if step % 2 == 0:
            log(run, step, {"eval_loss": 2 / step, "epoch": step / 6})
        if how == f"kill@{step}":
            wanted = f'"eval/loss": {step}'
            for _ in range(600):
                kept = next(run.output_dir.glob("tracker_*.json"), None)
                if kept and wanted in kept.read_text():
                    break
                time.sleep(0.05)
            time.sleep(0.3)
            os.kill(os.getpid(), signal.SIGKILL)
    if how == "fail":
        raise ftk.DataError("row 7 is broken")
    if how == "stop":
        raise KeyboardInterrupt
    return {"train_loss": 0.5}

@ftk.hookimpl
def ftk_trainers():
    yield ftk.Trainer("steps", target="ftk_steps:train", uses=("tracker",), options=(StepsOptions, TrainingOptions),
                      summary="Logs steps")
"""
PROCESS = """
import json, socket, sys
from ftk.config import Setting
from ftk.plan import make_plan
from ftk.registry import Registry
from ftk.run import execute
reached = []
connect, resolve = socket.socket.connect, socket.getaddrinfo
def noted(self, address):
    if self.family != socket.AF_UNIX:
        reached.append(str(address))
    return connect(self, address)
socket.socket.connect = noted
socket.getaddrinfo = lambda *words, **more: (reached.append(str(words[:2])), resolve(*words, **more))[1]
import logging
logging.basicConfig(level=logging.WARNING, format="%(message)s")
settings = {key: Setting(value, "the test") for key, value in json.loads(sys.argv[1]).items()}
error = ""
try:
    execute(make_plan(settings, Registry.discover(), config="test.yaml"))
except BaseException as raised:
    error = str(raised) or type(raised).__name__
import time
time.sleep(float(sys.argv[2]))
print(json.dumps({"reached": reached, "error": error}))
"""


class Tracked:
    """Runs of one run directory, ``folder/out``."""

    def __init__(self, folder):
        self.folder = folder
        self.out = folder / "out"
        write_plugin(folder / "plugin", "steps", TRAINER)
        (folder / "process.py").write_text(PROCESS)

    def run(self, *, how="", variables=None, linger=0, **settings):
        """What the process said; None when it was killed. ``said`` are its warnings."""
        settings = {"stage": "steps", "output_dir": str(self.out), **settings}
        kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
        done = subprocess.run(
            [sys.executable, str(self.folder / "process.py"), json.dumps(settings), str(linger)],
            cwd=self.folder,
            env={**kept, "PYTHONPATH": str(self.folder / "plugin"), "STEPS_HOW": how, **(variables or {})},
            capture_output=True,
            text=True,
            timeout=120,
        )
        if done.returncode < 0:
            return None
        assert done.returncode == 0, done.stderr[-2000:]
        printed = done.stdout.splitlines()
        (result,) = (line for line in printed if line.startswith('{"reached"'))
        printed.remove(result)
        return {**json.loads(result), "said": done.stderr, "printed": printed}

    def kept(self, name):
        """The content of ``tracker_NAME.json``."""
        return json.loads((self.out / f"tracker_{name}.json").read_text())

    def killed_and_resumed(self, **settings):
        """A run that is killed after step 4 and goes on behind step 2: steps 3 and 4 are taken twice."""
        assert self.run(how="kill@4", **settings) is None
        assert self.run(**settings)["error"] == ""


@pytest.fixture
def tracked(tmp_path):
    return Tracked(tmp_path)


LOSSES = {step: 1 / step for step in range(1, 7)}
EVALUATIONS = {step: 2 / step for step in (2, 4, 6)}


@pytest.fixture
def as_it_was():
    """(step → loss, step → evaluation loss) of a whole run."""
    return LOSSES, EVALUATIONS
