"""What trackers share. Reference: what each test says; the back ends here are lists, the real ones have tests, too."""

import json
import logging
import threading
from types import SimpleNamespace

import pytest
from ftk import DataError
from ftk.testing import run_in
from ftk_training import tracking
from ftk_training.interrupting import Interrupted


class Kept:
    """A back end that keeps everything in a list."""

    def __init__(self, told):
        self.told, self.lines, self.ended = told, [], None

    def log(self, step, metrics):
        self.lines.append((step, dict(metrics)))

    def close(self, status, error):
        self.ended = (status, error)


def made(folder, connect=None, continues=False):
    """A tracker of a run of nothing, and the back end that it got."""
    registry = SimpleNamespace(options={}, record_of=None)
    plan = SimpleNamespace(registry=registry, values={}, given={}, chosen={}, records=())
    run = SimpleNamespace(plan=plan, output_dir=folder, continues=continues, seed=1)
    backends = []

    def kept(told):
        backends.append(Kept(told))
        return backends[-1]

    return tracking.track(run, "list", connect or kept), backends


def logged(folder, *lines):
    text = "".join(json.dumps({"step": step, "total_steps": 9, "seconds": 1.0, **more}) + "\n" for step, more in lines)
    (folder / "trainer_log.jsonl").write_text(text)


def test_names_are_grouped_and_what_is_no_number_is_left_out(tmp_path):
    tracker, backends = made(tmp_path)
    tracker.log(1, {"loss": 2, "note": "text", "flag": True})
    tracker.log(2, {"eval_loss": 1.5})
    tracker.close(None)
    assert backends[0].lines == [(1, {"train/loss": 2.0}), (2, {"eval/loss": 1.5})]
    assert backends[0].ended == ("finished", "")


def test_logging_does_not_wait_for_a_back_end(tmp_path):
    gate, opened = threading.Event(), []

    def slow(told):
        opened.append(gate.wait(30))
        return Kept(told)

    tracker, _ = made(tmp_path, slow)
    for step in range(1000):
        tracker.log(step, {"loss": 1.0})
    assert not opened, "it is still being opened"
    gate.set()
    tracker.close(None)
    assert json.loads((tmp_path / "tracker_list.json").read_text())["steps"] == {"train/loss": 999}


def test_a_resumed_run_has_its_id_and_writes_no_step_twice(tmp_path):
    first, backends = made(tmp_path)
    for step in (1, 2, 3):
        first.log(step, {"loss": 1 / step})
    first.close(KeyboardInterrupt())
    second, more = made(tmp_path, continues=True)
    for step in (2, 3, 4):
        second.log(step, {"loss": 1 / step})
    second.close(None)
    assert more[0].told.resumed
    assert more[0].told.id == backends[0].told.id
    assert more[0].lines == [(4, {"train/loss": 0.25})]
    third, new = made(tmp_path)
    third.close(None)
    assert new[0].told.id != backends[0].told.id, "another run in the folder"


def test_what_a_killed_back_end_lost_comes_from_the_log_of_the_run(tmp_path):
    first, _ = made(tmp_path)
    for step in (1, 2, 3):
        first.log(step, {"loss": float(step)})
    first.close(None)
    logged(tmp_path, (1, {"loss": 1.0}), (2, {"loss": 2.0}), (3, {"loss": 3.0}))
    with (tmp_path / "trainer_log.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')

    class Lossy(Kept):
        def written(self):
            return {"train/loss": 1}

    found = []
    second, _ = made(tmp_path, lambda told: found.append(Lossy(told)) or found[0], continues=True)
    second.log(3, {"loss": 3.0})
    second.close(None)
    assert found[0].lines == [(2, {"train/loss": 2.0}), (3, {"train/loss": 3.0})]


@pytest.mark.parametrize("fails", ["connect", "log", "close"])
def test_a_failing_back_end_is_one_warning(tmp_path, caplog, fails):
    class Failing(Kept):
        def __init__(self, told):
            self.may("connect")
            super().__init__(told)

        def may(self, what):
            if what == fails:
                raise OSError(f"no {what}")

        def log(self, step, metrics):
            self.may("log")

        def close(self, status, error):
            self.may("close")

    with caplog.at_level(logging.WARNING):
        tracker, _ = made(tmp_path, Failing)
        for step in range(5):
            tracker.log(step, {"loss": 1.0})
        tracker.close(None)
    said = [record.message for record in caplog.records if f"no {fails}" in record.message]
    assert len(said) == 1
    assert ("5 log lines were lost" in caplog.text) == (fails == "log")


@pytest.mark.parametrize(
    ("error", "status"),
    [(None, "finished"), (DataError("x"), "failed"), (RuntimeError("x"), "failed"),
     (KeyboardInterrupt(), "interrupted"), (Interrupted(15, "stopped"), "interrupted")],
)  # fmt: skip
def test_how_a_run_ended(error, status):
    assert tracking.status_of(error) == status


TRACKER = """
import ftk

def start(run):
    raise OSError("no such place")

@ftk.hookimpl
def ftk_trackers():
    yield ftk.Tracker("nowhere", target="ftk_nowhere:start", switch="use_nowhere", options=Options, summary="Fails")

@ftk.options
class Options:
    use_nowhere: bool = ftk.option(False, help="Use it.")
"""


def test_a_tracker_is_switched_on_by_its_key_and_does_not_end_the_run(fake_plugin, tmp_path, caplog):
    fake_plugin("nowhere", TRACKER)
    done = run_in(tmp_path, use_nowhere=True, template="chatml", max_steps=1)
    assert done.record["chosen"]["tracker"] == ["nowhere"]
    assert done.record["status"] == "finished"
    assert "tracker nowhere failed: OSError: no such place" in caplog.text
