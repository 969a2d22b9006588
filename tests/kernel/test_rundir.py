"""The run directory: what is written aside is whole or absent. Digests are compared with hashlib's."""

import errno
import hashlib
import json
import os

import pytest
from ftk import rundir
from ftk.errors import CheckpointError


def test_a_folder_appears_whole_with_a_manifest(tmp_path):
    target = tmp_path / "checkpoint-1"
    with rundir.written_aside(target) as aside:
        (aside / "a.bin").write_bytes(b"weights")
        (aside / "sub").mkdir()
        (aside / "sub" / "b.txt").write_text("x")
        assert not target.exists()
    manifest = json.loads((target / rundir.MANIFEST).read_text())
    assert manifest["a.bin"] == {"size": 7, "sha256": hashlib.sha256(b"weights").hexdigest()}
    assert set(manifest) == {"a.bin", "sub/b.txt"}
    assert rundir.damage(target) == ""
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]


def test_a_failure_leaves_what_was_there(tmp_path):
    target = tmp_path / "checkpoint-1"
    with rundir.written_aside(target) as aside:
        (aside / "a").write_text("old")
    with pytest.raises(ZeroDivisionError):  # noqa: PT012, SIM117 - the block that fails is what is tested
        with rundir.written_aside(target) as aside:
            (aside / "a").write_text("new")
            raise ZeroDivisionError
    assert (target / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]


def test_writing_again_replaces(tmp_path):
    target = tmp_path / "checkpoint-1"
    for text in ("old", "new"):
        with rundir.written_aside(target) as aside:
            (aside / "a").write_text(text)
    assert (target / "a").read_text() == "new"
    assert rundir.damage(target) == ""


def test_a_full_disk_is_one_line_and_keeps_the_old(tmp_path):
    with pytest.raises(CheckpointError) as caught, rundir.written_aside(tmp_path / "checkpoint-2"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert "checkpoint-2: cannot be written: No space left on device" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda folder: (folder / "a").unlink(), "a is missing"),
        (lambda folder: (folder / "a").write_text("shor"), "a has 4 bytes instead of 5"),
        (lambda folder: (folder / "a").write_text("wrong"), "a has changed since it was written"),
        (lambda folder: (folder / rundir.MANIFEST).unlink(), "was never finished"),
        (lambda folder: (folder / rundir.MANIFEST).write_text("{"), "cannot be read"),
    ],
)
def test_damage_is_named(tmp_path, harm, said):
    with rundir.written_aside(tmp_path / "c") as aside:
        (aside / "a").write_text("right")
    harm(tmp_path / "c")
    assert said in rundir.damage(tmp_path / "c")


def test_leftovers_of_a_killed_run_are_removed(tmp_path):
    (tmp_path / f"{rundir.ASIDE}checkpoint-3").mkdir()
    (tmp_path / f"{rundir.ASIDE}run.json").write_text("{")
    (tmp_path / "mine.txt").write_text("stays")
    rundir.clean_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_text_file_changes_in_one_step(tmp_path):
    path = tmp_path / "run.json"
    rundir.write_text(path, "1")
    rundir.write_text(path, "2")
    assert path.read_text() == "2"
    with pytest.raises(CheckpointError, match="cannot be written"):
        rundir.write_text(tmp_path / "nowhere" / "run.json", "x")


def test_a_damaged_record_is_said(tmp_path):
    assert rundir.read_record(tmp_path) is None
    (tmp_path / rundir.RECORD).write_text("{")
    with pytest.raises(CheckpointError, match=r"run\.json: cannot be read"):
        rundir.read_record(tmp_path)


def test_values_become_plain_json(tmp_path):
    assert rundir.plain({"a": (1, {2}), "b": tmp_path, 3: None}) == {"a": [1, [2]], "b": str(tmp_path), "3": None}


@pytest.fixture
def prepared(registry, data):
    """``prepared(status, options, **settings)``: what ``prepare`` says of a folder that holds such a run."""
    from ftk.config import Setting
    from ftk.plan import make_plan

    def prepare(status=None, options=None, **settings):
        out = data / "out"
        values = {"model_name_or_path": "m", "dataset": "rows", "output_dir": str(out), **settings}
        plan = make_plan({key: Setting(value, "run.yaml:1") for key, value in values.items()}, registry)
        out.mkdir(exist_ok=True)
        (out / "foreign.txt").write_text("mine")
        if status:
            record = {"status": status, "options": options or rundir.resolved_options(plan), "files": ["weights"]}
            (out / "run.json").write_text(json.dumps(record))
            (out / "weights").write_text("w")
        return rundir.prepare(plan, out)

    return prepare


def test_a_new_folder_begins_and_an_interrupted_run_goes_on(prepared, data):
    assert prepared() is False
    assert prepared("running") is True
    assert prepared("interrupted") is True
    assert prepared("interrupted", overwrite_output_dir=True) is True
    assert (data / "out" / "weights").exists()
    assert prepared("finished", resume_from_checkpoint=True) is True


def test_after_a_mended_error_the_same_folder_is_used_until_it_holds_a_checkpoint(prepared, data):
    from ftk.errors import ConfigError

    assert prepared("failed") is True
    assert prepared("failed", {"rank": 4}) is False
    assert prepared("failed", resume_from_checkpoint=False) is False
    (data / "out" / "checkpoint-1").mkdir()
    with pytest.raises(ConfigError, match=r"unfinished run that differs in .*rank"):
        prepared("failed", {"rank": 4})


def test_results_are_thrown_away_only_when_that_is_said(prepared, data):
    from ftk.errors import ConfigError

    with pytest.raises(ConfigError, match="holds the results of a finished run"):
        prepared("finished")
    with pytest.raises(ConfigError, match=r"unfinished run that differs in .*rank"):
        prepared("running", {"rank": 4})
    with pytest.raises(ConfigError, match=r"unfinished run\. Continue it"):
        prepared("running", resume_from_checkpoint=False)
    assert (data / "out" / "weights").exists()
    assert prepared("finished", overwrite_output_dir=True) is False
    assert not (data / "out" / "weights").exists()
    assert prepared("running", overwrite_output_dir=True, resume_from_checkpoint=False) is False
    assert (data / "out" / "foreign.txt").read_text() == "mine"
