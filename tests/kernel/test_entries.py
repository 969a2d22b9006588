"""Where the names of data sets come from. Reference: LLaMA-Factory's rules for ``dataset_dir``, written out."""

import ftk
import pluggy
import pytest
from ftk.config import Setting
from ftk.entries import EntryReader
from ftk.plan import make_plan
from ftk.plugins import PluginRecord
from ftk.registry import Registry

asked = []


def fetched(dataset_dir, value):
    """What a source's ``info`` names: a dataset_info.json from elsewhere."""
    asked.append((dataset_dir, value("output_dir")))
    if dataset_dir.endswith("broken"):
        raise ftk.ConfigError("cannot be fetched")
    return {"far": {"hub_name": "owner/far"}, "near": {"file_name": "near.json"}}


SPECS = (
    ftk.DatasetSource("file", target="made.up:open", field="file_name", schemes=("",), order=60),
    ftk.DatasetSource("other", target="made.up:open", field="other_name", order=50, all_names="ONLINE"),
    ftk.DatasetSource("hub", target="made.up:open", field="hub_name", schemes=("hub",), order=10, all_names="ONLINE",
                      info=f"{__name__}:fetched", info_prefix="REMOTE:"),
    ftk.DatasetConverter("rows", target="made.up:convert", default=True),
)  # fmt: skip


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """``planned(dataset, dataset_dir)``: (name, source, fields) of each data set."""
    monkeypatch.chdir(tmp_path)
    record = PluginRecord("made-up", "ftk-made-up", "1", __name__, specs=SPECS)
    registry = Registry((record,), pluggy.PluginManager("ftk"))

    def plan(dataset, dataset_dir):
        reader = EntryReader(registry, dataset_dir, tmp_path, {"output_dir": "out"}.get)
        return [(one.entry.name, one.source.name, dict(one.entry.fields)) for one in reader.plan(dataset)]

    return plan


def test_online_takes_names_as_a_hub_has_them_but_for_files_and_addresses(planned, tmp_path):
    (tmp_path / "mine.jsonl").write_text("")
    (tmp_path / "folder").mkdir()
    assert planned("owner/name, folder, mine.jsonl, hub://a/b", "ONLINE") == [
        ("owner/name", "hub", {"hub_name": "owner/name"}),
        ("folder", "hub", {"hub_name": "folder"}),
        ("mine", "file", {"file_name": "mine.jsonl"}),
        ("b", "hub", {"hub_name": "hub://a/b"}),
    ]


def test_a_remote_dataset_info_is_fetched_once_by_the_source_that_answers_for_it(planned):
    asked.clear()
    assert planned("far,near", "REMOTE:owner/info") == [
        ("far", "hub", {"hub_name": "owner/far"}),
        ("near", "file", {"file_name": "near.json"}),
    ]
    assert asked == [("REMOTE:owner/info", "out")]


def test_what_is_wrong_with_a_remote_dataset_info_is_said(planned):
    with pytest.raises(ftk.ConfigError, match="cannot be fetched"):
        planned("far", "REMOTE:owner/broken")
    with pytest.raises(ftk.ConfigError, match=r"fa is neither a name in REMOTE:owner/info.* Did you mean far\?"):
        planned("fa", "REMOTE:owner/info")


def test_dataset_dir_may_be_the_mapping_itself(planned):
    assert planned("mine", {"mine": {"file_name": "x.json", "num_samples": 3}}) == [
        ("mine", "file", {"file_name": "x.json", "num_samples": 3})
    ]
    with pytest.raises(ftk.ConfigError, match=r"min is neither a name in dataset_dir nor a file\. Did you mean mine"):
        planned("min", {"mine": {"file_name": "x.json"}})


def test_data_sets_of_one_name_are_told_apart(planned, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "train.json").write_text("[]")
    found = planned(["a/train.json", "b/train.json", "a/train.json"], "data")
    assert [name for name, *_ in found] == ["train", "train-2", "train-3"]


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"\xef\xbb\xbf{}", "is neither a name"), (b"\xff\xfe{", "cannot be read"), (b"[" * 100_000, "cannot be read")],
)
def test_any_bytes_in_dataset_info_are_an_error_in_one_line(planned, tmp_path, content, said):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dataset_info.json").write_bytes(content)
    with pytest.raises(ftk.ConfigError, match=said) as caught:
        planned("mine", "data")
    assert "\n" not in str(caught.value)


def test_the_plan_asks_with_the_options_of_the_run(tmp_path, monkeypatch):
    asked.clear()
    specs = (
        *SPECS, ftk.ModelLoader("disk", target="made.up:load", default=True),
        ftk.Adapter("all", target="made.up:apply", default=True), ftk.ChatTemplate("plain", default=True),
        ftk.Trainer("learn", target="made.up:train", default=True),
    )  # fmt: skip
    registry = Registry(
        (PluginRecord("made-up", "ftk-made-up", "1", __name__, specs=specs),), pluggy.PluginManager("ftk")
    )
    given = {"dataset": "far", "dataset_dir": "REMOTE:x", "output_dir": str(tmp_path), "model_name_or_path": "m"}
    plan = make_plan({key: Setting(value, "the test") for key, value in given.items()}, registry)
    assert [one.source.name for one in plan.datasets["train"]] == ["hub"]
    assert asked == [("REMOTE:x", str(tmp_path))]
