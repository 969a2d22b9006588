"""W&B's offline files: records of its own protobuf in LevelDB's log format (leveldb, doc/log_format.md), read here.

The wandb package has no reader of them in Python any more.
"""

import json
import struct

import pytest

pytest.importorskip("wandb", reason='needs pip install "ftk-wandb[backend]"')
from wandb.proto.wandb_internal_pb2 import Record

BLOCK, HEADER = 32768, 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def records_of(path):
    data = path.read_bytes()
    place, whole = 7, b""  # behind W&B's own header of seven bytes
    while place + HEADER <= len(data):
        if BLOCK - place % BLOCK < HEADER:
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + HEADER])
        part = data[place + HEADER : place + HEADER + length]
        place += HEADER + length
        whole = part if kind in (FULL, FIRST) else whole + part
        if kind in (FULL, LAST):
            yield Record.FromString(whole)


def files_of(folder):
    return sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))


def values(items):
    return {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


def history(paths):
    return [values(one.history.item) for path in paths for one in records_of(path) if one.HasField("history")]


def points(paths, name):
    return [(line["train/global_step"], line[name]) for line in history(paths) if name in line]


def test_metrics_options_versions_and_the_end_are_in_the_file(tracked, as_it_was):
    done = tracked.run(
        report_to="wandb", run_name="first", wandb_project="mine", learning_rate=0.25, steps_secret="hush-hush",
        linger=7, variables={"WANDB_MODE": "online"},
    )  # fmt: skip
    assert (done["error"], done["reached"], done["said"], done["printed"]) == ("", [], "", [])
    (path,) = files_of(tracked.out)
    losses, evaluations = as_it_was
    assert points([path], "train/loss") == list(losses.items())
    assert points([path], "eval/loss") == list(evaluations.items())
    found = list(records_of(path))
    (run,) = (one.run for one in found if one.HasField("run"))
    assert (run.display_name, run.project, run.run_id) == ("first", "mine", tracked.kept("wandb")["id"])
    config = values(run.config.update)
    assert (config["learning_rate"], config["steps_secret"]) == (0.25, "***")
    assert {"ftk/plugins/ftk-wandb", "ftk/libraries/torch"} <= config.keys()
    assert [one.exit.exit_code for one in found if one.HasField("exit")] == [0]
    summary = {}
    for one in found:
        summary |= values(one.summary.update)
    assert summary["status"] == "finished"
    written = b"".join(path.read_bytes() for path in tracked.out.rglob("*") if path.is_file())
    assert b"hush-hush" not in written


def test_a_killed_run_goes_on_under_its_id_without_a_step_twice(tracked, as_it_was):
    tracked.killed_and_resumed(report_to="wandb")
    paths = files_of(tracked.out)
    assert {path.name for path in paths} == {f"run-{tracked.kept('wandb')['id']}.wandb"}
    losses, evaluations = as_it_was
    assert sorted(points(paths, "train/loss")) == list(losses.items())
    assert points(paths, "eval/loss") == list(evaluations.items())
    counters = [line["_step"] for line in history(paths)]
    assert counters == sorted(set(counters)), "W&B takes no counter a second time"


def test_a_run_that_fails_ends_with_another_code(tracked):
    tracked.run(how="fail", report_to="wandb")
    (path,) = files_of(tracked.out)
    assert [one.exit.exit_code for one in records_of(path) if one.HasField("exit")] == [1]
