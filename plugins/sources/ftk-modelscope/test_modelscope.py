"""Reference: the files that a stand-in for modelscope has put into a folder."""

import json
import sys
from types import ModuleType, SimpleNamespace

import ftk_modelscope
import pytest
from ftk import DataError, DatasetEntry, PluginError
from ftk_modelscope import ModelScopeOptions
from ftk_modelscope.rows import open_rows


def run_with(token=None, **values):
    return SimpleNamespace(
        options=lambda cls: {ModelScopeOptions: ModelScopeOptions(ms_hub_token=token)}[cls],
        value=values.__getitem__,
        plan=SimpleNamespace(registry=SimpleNamespace(options=dict.fromkeys(values))),
    )


RUN = run_with()


def entry(**fields):
    return DatasetEntry("made", {"ms_hub_url": "ms://owner/name", **fields}, "the test", "")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """``hub.files`` are what a download brings, each with its own name as a row; ``hub.asked`` how it was asked for."""
    made = ModuleType("modelscope")
    made.files = ["train.jsonl"]

    def dataset_snapshot_download(url, **asked):
        made.asked = {"url": url, **asked}
        if made.files is None:
            raise RuntimeError("404 Not Found\nmore")
        for name in made.files:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"file": name}) + "\n")
        return str(tmp_path)

    made.dataset_snapshot_download = dataset_snapshot_download
    monkeypatch.setitem(sys.modules, "modelscope", made)
    return made


def test_the_hub_is_asked_for_the_data_set_with_the_token(hub):
    assert list(open_rows(entry(), run_with("secret", cache_dir="/c"))) == [{"file": "train.jsonl"}]
    assert hub.asked == {"url": "owner/name", "cache_dir": "/c", "token": "secret"}
    open_rows(entry(), RUN)
    assert hub.asked == {"url": "owner/name", "cache_dir": None}


@pytest.mark.parametrize(
    ("files", "fields", "expected"),
    [
        (["a.jsonl", "README.md", "dataset_infos.json"], {}, ["a.jsonl"]),
        (["train.jsonl", "test.jsonl"], {}, ["train.jsonl"]),
        (["train.jsonl", "test.jsonl"], {"split": "test"}, ["test.jsonl"]),
        (["rows.jsonl", "dev.jsonl"], {}, ["rows.jsonl"]),
        (["data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl", "data/val-00000-of-00001.jsonl"], {},
         ["data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl"]),
        (["data/train_sft-00000-of-00001.jsonl", "data/train_gen-00000-of-00001.jsonl"], {"split": "train_sft"},
         ["data/train_sft-00000-of-00001.jsonl"]),
        (["en/train.jsonl", "zh/train.jsonl"], {"subset": "zh"}, ["zh/train.jsonl"]),
        (["alpaca_en.jsonl", "alpaca_zh.jsonl"], {"subset": "en"}, ["alpaca_en.jsonl"]),
        (["a/x.jsonl", "b/x.jsonl"], {"folder": "b"}, ["b/x.jsonl"]),
        (["train-0.jsonl", "train-1.jsonl", "test.jsonl"], {"split": "train[1:]"}, ["train-1.jsonl"]),
    ],
)  # fmt: skip
def test_folder_subset_and_split_choose_the_files(hub, files, fields, expected):
    hub.files = files
    rows = open_rows(entry(**fields), RUN)
    assert [row["file"] for row in rows] == expected


@pytest.mark.parametrize(
    "fields", [{"split": "dev"}, {"subset": "de"}, {"folder": "c"}, {"folder": "c", "split": "dev"}]
)
def test_what_is_not_there_is_told_with_what_is(hub, fields):
    hub.files = ["en/train.jsonl", "en/test.jsonl"]
    with pytest.raises(DataError, match=r"made: nothing in the data set matches .* It has ") as caught:
        open_rows(entry(**fields), RUN)
    assert all(f"{key} {value}" in str(caught.value) for key, value in fields.items())


def test_a_download_that_fails_says_why_in_one_line(hub):
    hub.files = None
    with pytest.raises(
        DataError, match=r"^made \(the test\): owner/name: cannot be downloaded: 404 Not Found\. Mind.*$"
    ):
        open_rows(entry(), RUN)


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "modelscope", None)
    with pytest.raises(PluginError, match=r'pip install "ftk-modelscope\[backend\]"'):
        open_rows(entry(), RUN)


@pytest.mark.parametrize(("value", "first"), [("1", True), ("true", True), ("0", False), ("", False)])
def test_the_environment_puts_this_hub_first(monkeypatch, value, first):
    """10 is the place of the Hugging Face hub."""
    monkeypatch.setenv("USE_MODELSCOPE_HUB", value)
    (spec,) = ftk_modelscope.ftk_dataset_sources()
    assert (spec.order < 10) is first
