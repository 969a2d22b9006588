"""SwanLab's offline files, read back by SwanLab's own ``DataStoreReader`` and protobuf."""

import pytest

pytest.importorskip("swanlab", reason='needs pip install "ftk-swanlab[backend]"')
import yaml
from swanlab.proto.swanlab.record.v1.record_pb2 import Record
from swanlab.proto.swanlab.run.v1 import run_pb2
from swanlab.sdk.internal.core_python.store import DataStoreReader


def records_of(path):
    if not path.stat().st_size:
        return  # of a process that was killed before anything reached the disk
    reader = DataStoreReader()
    reader.open(path)
    while (data := reader.scan()) is not None:
        yield Record.FromString(data)
    reader.close()


def files_of(folder):
    return sorted(folder.glob("swanlog/run-*/run-*.swanlab"))


def points(paths, name):
    """(step, value) in the order in which they were written."""
    found = (one.scalar for path in paths for one in records_of(path) if one.HasField("scalar"))
    return [(one.step, one.value.number) for one in found if one.key == name]


def state(path):
    (finish,) = (one.finish for one in records_of(path) if one.HasField("finish"))
    return run_pb2.RunState.Name(finish.state)


def test_metrics_options_versions_and_the_end_are_in_the_file(tracked, as_it_was):
    done = tracked.run(
        use_swanlab=True, run_name="first", swanlab_api_key="hush-hush", swanlab_lark_secret="pst", learning_rate=0.25,
        linger=2,
    )  # fmt: skip
    assert (done["error"], done["reached"]) == ("", [])
    (path,) = files_of(tracked.out)
    losses, evaluations = as_it_was
    assert points([path], "train/loss") == list(losses.items())
    assert points([path], "eval/loss") == list(evaluations.items())
    config = yaml.safe_load((path.parent / "files" / "config.yaml").read_text())
    assert (config["learning_rate"]["value"], config["swanlab_api_key"]["value"]) == (0.25, "***")
    assert {"ftk/plugins/ftk-swanlab", "ftk/libraries/torch"} <= config.keys()
    assert state(path) == "RUN_STATE_FINISHED"
    written = b"".join(path.read_bytes() for path in tracked.out.rglob("*") if path.is_file())
    assert b"hush-hush" not in written
    assert b"pst" not in written
    assert b"process.py" not in written, "a token can stand in the command line"


def test_a_killed_run_goes_on_under_its_id_without_a_step_twice(tracked, as_it_was):
    tracked.killed_and_resumed(use_swanlab=True)
    paths = files_of(tracked.out)
    assert {path.name for path in paths} == {f"run-{tracked.kept('swanlab')['id']}.swanlab"}
    losses, evaluations = as_it_was
    assert points(paths, "train/loss") == list(losses.items())
    assert points(paths, "eval/loss") == list(evaluations.items())


def test_a_run_that_fails_says_so(tracked):
    tracked.run(how="fail", report_to="swanlab", swanlab_logdir=str(tracked.folder / "logs" / "swanlog"))
    (path,) = files_of(tracked.folder / "logs")
    assert state(path) == "RUN_STATE_CRASHED"
