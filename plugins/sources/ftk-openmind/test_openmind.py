"""Reference: the files that a stand-in for openmind_hub has put into a folder."""

import json
import sys
from types import ModuleType, SimpleNamespace

import ftk_openmind
import pytest
from ftk import DataError, DatasetEntry, PluginError
from ftk_openmind import OpenMindOptions
from ftk_openmind.rows import open_rows


def run_with(token=None, **values):
    return SimpleNamespace(
        options=lambda cls: {OpenMindOptions: OpenMindOptions(om_hub_token=token)}[cls],
        value=values.__getitem__,
        plan=SimpleNamespace(registry=SimpleNamespace(options=dict.fromkeys(values))),
    )


RUN = run_with()


def entry(**fields):
    return DatasetEntry("made", {"om_hub_url": "om://owner/name", **fields}, "the test", "")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """``hub.files`` are what a download brings, each with its own name as a row; ``hub.asked`` how it was asked for."""
    made = ModuleType("openmind_hub")
    made.files = ["train.jsonl"]

    def snapshot_download(url, **asked):
        made.asked = {"url": url, **asked}
        if made.files is None:
            raise RuntimeError("404 Not Found\nmore")
        for name in made.files:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"file": name}) + "\n")
        return str(tmp_path)

    made.snapshot_download = snapshot_download
    monkeypatch.setitem(sys.modules, "openmind_hub", made)
    return made


def test_the_hub_is_asked_for_the_data_set_with_the_token(hub):
    assert list(open_rows(entry(), run_with("secret", cache_dir="/c"))) == [{"file": "train.jsonl"}]
    assert hub.asked == {"url": "owner/name", "cache_dir": "/c", "token": "secret", "repo_type": "dataset"}
    open_rows(entry(), RUN)
    assert hub.asked == {"url": "owner/name", "cache_dir": None, "token": None, "repo_type": "dataset"}


def test_split_and_subset_choose_the_files(hub):
    hub.files = ["en/train.jsonl", "en/test.jsonl", "zh/test.jsonl", "README.md"]
    assert [row["file"] for row in open_rows(entry(subset="en", split="test"), RUN)] == ["en/test.jsonl"]


def test_a_download_that_fails_says_why_in_one_line(hub):
    hub.files = None
    with pytest.raises(
        DataError, match=r"^made \(the test\): owner/name: cannot be downloaded: 404 Not Found\. Mind.*$"
    ):
        open_rows(entry(), RUN)


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "openmind_hub", None)
    with pytest.raises(PluginError, match=r'pip install "ftk-openmind\[backend\]"'):
        open_rows(entry(), RUN)


@pytest.mark.parametrize(("value", "first"), [("1", True), ("true", True), ("0", False), ("", False)])
def test_the_environment_puts_this_hub_first(monkeypatch, value, first):
    """10 is the place of the Hugging Face hub."""
    monkeypatch.setenv("USE_OPENMIND_HUB", value)
    (spec,) = ftk_openmind.ftk_dataset_sources()
    assert (spec.order < 10) is first
