"""Trackio's database, read back by Trackio's own ``SQLiteStorage``, in a process that has its folder."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("trackio", reason='needs pip install "ftk-trackio[backend]"')
READ = """
import json
from trackio.sqlite_storage import SQLiteStorage
runs = SQLiteStorage.get_runs("mine")
read = {"config": SQLiteStorage.get_run_config, "logs": SQLiteStorage.get_logs}
print(json.dumps({name: {what: ask("mine", name) for what, ask in read.items()} for name in runs}, default=str))
"""


def runs_of(folder):
    environment = {**os.environ, "TRACKIO_DIR": str(folder)}
    done = subprocess.run([sys.executable, "-c", READ], env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def points(run, name):
    """(step, value) in the order in which they were written."""
    return [(line["step"], line[name]) for line in run["logs"] if name in line]


def test_metrics_options_versions_and_the_end_are_in_the_database(tracked, as_it_was):
    done = tracked.run(
        report_to="trackio", run_name="first", project="mine", learning_rate=0.25, steps_secret="hush-hush",
        variables={"TRACKIO_SPACE_ID": "somebody/space"},
    )  # fmt: skip
    assert (done["error"], done["reached"], done["printed"]) == ("", [], [])
    assert "could not" not in done["said"]
    ((name, run),) = runs_of(tracked.out / "trackio").items()
    losses, evaluations = as_it_was
    assert name == f"first-{tracked.kept('trackio')['id']}"
    assert points(run, "train/loss") == list(losses.items())
    assert points(run, "eval/loss") == list(evaluations.items())
    assert [line["status"] for line in run["logs"] if "status" in line] == ["finished"]
    assert (run["config"]["learning_rate"], run["config"]["steps_secret"]) == (0.25, "***")
    assert {"ftk/plugins/ftk-trackio", "ftk/libraries/torch"} <= run["config"].keys()
    written = b"".join(path.read_bytes() for path in tracked.out.rglob("*") if path.is_file())
    assert b"hush-hush" not in written


def test_a_killed_run_goes_on_in_the_same_one_without_a_step_twice(tracked, as_it_was):
    tracked.killed_and_resumed(report_to="trackio", project="mine")
    (run,) = runs_of(tracked.out / "trackio").values()
    losses, evaluations = as_it_was
    assert points(run, "train/loss") == list(losses.items())
    assert points(run, "eval/loss") == list(evaluations.items())


def test_a_run_that_fails_says_so(tracked):
    tracked.run(how="fail", report_to="trackio", project="mine", trackio_dir=str(tracked.folder / "boards"))
    (run,) = runs_of(tracked.folder / "boards").values()
    assert [line["status"] for line in run["logs"] if "status" in line] == ["failed: row 7 is broken"]
