"""Reference: the rows as they were written, read by the datasets library without ftk; without that library, a stand-in
that records how it is asked."""

import importlib.util
import io
import json
import sys
from types import ModuleType, SimpleNamespace

import pytest
from ftk import ConfigError, DataError, DatasetEntry, PluginError
from ftk_hub.info import fetched
from ftk_hub.rows import open_rows, refuse_script

HAS_DATASETS = importlib.util.find_spec("datasets") is not None
needs_datasets = pytest.mark.skipif(not HAS_DATASETS, reason="datasets is not installed")


def entry(**fields):
    return DatasetEntry("made", fields, "the test", "")


def run_with(**values):
    """A run in which these keys are declared and have these values."""
    return SimpleNamespace(
        value=values.__getitem__, plan=SimpleNamespace(registry=SimpleNamespace(options=dict.fromkeys(values)))
    )


class Table(list):
    def to_pylist(self):
        return list(self)


class Stored:
    """What the library gives for a downloaded set, as far as it is used."""

    def __init__(self, rows):
        self.rows = rows
        self.cache_files = [{"filename": "x.arrow"}]
        self.info = SimpleNamespace(download_checksums=None)

    def __len__(self):
        return len(self.rows)

    def with_format(self, kind):
        assert kind == "arrow"
        return self

    def iter(self, batch_size):
        for start in range(0, len(self.rows), batch_size):
            yield Table(self.rows[start : start + batch_size])

    def select(self, numbers):
        return Stored([self.rows[number] for number in numbers])

    def skip(self, num):
        return Stored(self.rows[num:])


@pytest.fixture
def library(monkeypatch):
    """A stand-in for datasets; ``library.asked`` is what load_dataset was called with, ``library.gives`` its answer."""
    made, errors = ModuleType("datasets"), ModuleType("datasets.exceptions")
    errors.DatasetsError = type("DatasetsError", (Exception,), {})
    errors.DatasetNotFoundError = type("DatasetNotFoundError", (errors.DatasetsError, FileNotFoundError), {})
    made.exceptions = errors
    made.gives = Stored([{"n": number} for number in range(250)])

    def load_dataset(path, **asked):
        made.asked = {"path": path, **asked}
        if isinstance(made.gives, Exception):
            raise made.gives
        return made.gives

    made.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", made)
    monkeypatch.setitem(sys.modules, "datasets.exceptions", errors)
    return made


def test_an_entry_says_what_is_loaded_and_code_is_never_trusted(library):
    fields = {"hf_hub_url": "hf://owner/name", "subset": "en", "split": "train_sft", "folder": "data"}
    open_rows(entry(**fields), run_with(hf_hub_token="secret", cache_dir="/c", streaming=True))
    assert library.asked == {
        "path": "owner/name", "name": "en", "data_dir": "data", "split": "train_sft", "cache_dir": "/c",
        "token": "secret", "streaming": True,
    }  # fmt: skip


def test_without_the_plugins_that_own_the_keys_the_library_decides(library):
    rows = open_rows(entry(hf_hub_url="owner/name"), run_with())
    assert library.asked == {
        "path": "owner/name", "name": None, "data_dir": None, "split": "train", "cache_dir": None, "token": None,
        "streaming": False,
    }  # fmt: skip
    assert len(rows) == 250
    assert rows.where(3) == "owner/name, split train, row 4"


@pytest.mark.parametrize("streaming", [False, True])
def test_rows_are_read_from_any_row_on(library, streaming):
    rows = open_rows(entry(hf_hub_url="owner/name"), run_with(streaming=streaming))
    for index in (0, 1, 100, 249, 250, 300):
        assert [row["n"] for row in rows.at(index)] == list(range(index, 250))
    assert hasattr(rows, "__len__") is not streaming


@pytest.mark.parametrize(
    ("raised", "reason"),
    [
        (lambda errors: errors.DatasetNotFoundError("no"), "owner/name: is not on the hub. Mind the spelling"),
        (lambda errors: ValueError('Unknown split "x".\nmore'), r'owner/name: Unknown split "x".'),
        (lambda errors: RuntimeError("Dataset scripts are no longer supported, but found name.py"),
         "comes with a loading script, which is not run. Save its rows as Parquet"),
        (lambda errors: ConnectionError("Couldn't reach the Hub"), "owner/name: Couldn't reach the Hub"),
    ],
)  # fmt: skip
def test_what_cannot_be_loaded_says_why_in_one_line(library, raised, reason):
    library.gives = raised(library.exceptions)
    with pytest.raises(DataError) as caught:
        open_rows(entry(hf_hub_url="owner/name"), run_with())
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_loading_script_is_refused():
    with pytest.raises(
        ConfigError, match=r"^made \(the test\): script_url: x\.py: loading scripts are not run\. Save its"
    ):
        refuse_script(entry(script_url="x.py"), None)


def test_of_several_addresses_llamafactory_s_order_holds(monkeypatch):
    for name in ("USE_MODELSCOPE_HUB", "USE_OPENMIND_HUB"):
        monkeypatch.delenv(name, raising=False)
    modules = [pytest.importorskip(f"ftk_{name}") for name in ("cloud", "file", "hub", "modelscope", "openmind")]
    specs = sorted((spec for module in modules for spec in module.ftk_dataset_sources()), key=lambda spec: spec.order)
    fields = ["hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name", "file_name"]
    assert [spec.field for spec in specs] == fields
    assert len({spec.order for spec in specs}) == len(fields)


def test_without_the_library_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(PluginError, match="pip install datasets"):
        open_rows(entry(hf_hub_url="owner/name"), run_with())


# With the library itself


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A data set laid out as on the hub: two subsets, two splits, an image."""
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    home = tmp_path / "set"
    for subset in ("en", "zh"):
        for split, size in (("train", 250), ("test", 2)):
            rows = [{"q": f"{subset} {split} {number}", "a": None if number % 2 else ["x"]} for number in range(size)]
            (home / subset).mkdir(parents=True, exist_ok=True)
            parquet.write_table(pa.Table.from_pylist(rows), home / subset / f"{split}-00000-of-00001.parquet")
    configs = [
        {
            "config_name": name,
            "data_files": [{"split": split, "path": f"{name}/{split}-*"} for split in ("train", "test")],
        }
        for name in ("en", "zh")
    ]
    (home / "README.md").write_text(f"---\nconfigs: {json.dumps(configs)}\n---\n")
    return home


@needs_datasets
@pytest.mark.parametrize("streaming", [False, True])
def test_the_library_s_rows_are_those_that_were_written(folder, tmp_path, streaming):
    for subset, split, size in (("en", "train", 250), ("zh", "test", 2)):
        fields = {"hf_hub_url": str(folder), "subset": subset, "split": split}
        run = run_with(streaming=streaming, cache_dir=str(tmp_path / "cache"))
        rows = open_rows(entry(**fields), run)
        expected = [{"q": f"{subset} {split} {number}", "a": None if number % 2 else ["x"]} for number in range(size)]
        assert list(rows) == list(rows) == expected
        for index in (1, 100, 249, 250):
            assert list(rows.at(index)) == expected[index:]
        assert rows.fingerprint() == open_rows(entry(**fields), run).fingerprint()
        other = open_rows(entry(**{**fields, "split": "test" if split == "train" else "train"}), run)
        assert rows.fingerprint() != other.fingerprint()


@needs_datasets
@pytest.mark.parametrize("streaming", [False, True])
def test_a_row_without_a_form_in_python_is_one_bad_row(tmp_path, monkeypatch, streaming):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    (tmp_path / "set").mkdir()
    when = pa.array([0, 2**62, 0], pa.timestamp("us"))
    parquet.write_table(pa.table({"n": [0, 1, 2], "when": when}), tmp_path / "set" / "train.parquet")
    rows = iter(open_rows(entry(hf_hub_url=str(tmp_path / "set")), run_with(streaming=streaming)))
    assert next(rows)["n"] == 0
    with pytest.raises(DataError, match="split train, row 2: has a value without a form in Python"):
        next(rows)
    assert [row["n"] for row in rows] == [2]


def test_rows_that_stop_coming_are_told_again_and_again(library):
    class Broken(Stored):
        def iter(self, batch_size):
            yield Table([{"n": 0}])
            raise OSError("gone")

    library.gives = Broken([0])
    rows = iter(open_rows(entry(hf_hub_url="owner/name"), run_with()))
    assert next(rows) == {"n": 0}
    for _ in range(2):
        with pytest.raises(DataError, match="owner/name: cannot be read: gone"):
            next(rows)


@needs_datasets
def test_the_library_s_errors_are_one_line(folder, tmp_path):
    run = run_with(cache_dir=str(tmp_path / "cache"))
    for fields, reason in (({"subset": "de"}, "de"), ({"subset": "en", "split": "dev"}, "dev")):
        with pytest.raises(DataError) as caught:
            open_rows(entry(hf_hub_url=str(folder), **fields), run)
        assert reason in str(caught.value)
        assert "\n" not in str(caught.value)


@needs_datasets
def test_a_folder_with_a_script_is_not_run(tmp_path):
    home = tmp_path / "set"
    home.mkdir()
    (home / "set.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(DataError, match=r"made \(the test\)"):
        open_rows(entry(hf_hub_url=str(home)), run_with(cache_dir=str(tmp_path / "cache")))
    assert not (tmp_path / "ran").exists()


@needs_datasets
@pytest.mark.parametrize("streaming", [False, True])
def test_images_come_as_they_are_stored(tmp_path, streaming):
    from datasets import Dataset, Features, Image, Value
    from PIL import Image as Pictures

    png = io.BytesIO()
    Pictures.new("RGB", (2, 2)).save(png, "PNG")
    features = Features({"q": Value("string"), "image": Image()})
    made = Dataset.from_list([{"q": "u", "image": {"bytes": png.getvalue(), "path": None}}], features=features)
    (tmp_path / "set").mkdir()
    made.to_parquet(tmp_path / "set" / "train.parquet")
    run = run_with(streaming=streaming, cache_dir=str(tmp_path / "cache"))
    (row,) = open_rows(entry(hf_hub_url=str(tmp_path / "set")), run)
    assert row == {"q": "u", "image": {"bytes": png.getvalue(), "path": None}}


# dataset_dir: REMOTE:owner/name


@pytest.fixture
def hub_file(monkeypatch, tmp_path):
    """``hub_file(content)``: what the hub has as dataset_info.json, bytes or an error; calls are kept in ``asked``."""
    hub = pytest.importorskip("huggingface_hub")
    asked = []

    def put(content):
        def download(repository, file, **more):
            asked.append((repository, file, more))
            if isinstance(content, Exception):
                raise content
            (tmp_path / file).write_bytes(content)
            return str(tmp_path / file)

        monkeypatch.setattr(hub, "hf_hub_download", download)
        return asked

    return put


def test_a_remote_dataset_info_is_read_with_the_token_of_the_run(hub_file):
    asked = hub_file(b'{"far": {"hf_hub_url": "owner/far"}}')
    value = {"hf_hub_token": "secret", "cache_dir": "/c"}.get
    assert fetched("REMOTE:owner/info", value) == {"far": {"hf_hub_url": "owner/far"}}
    assert asked == [
        ("owner/info", "dataset_info.json", {"repo_type": "dataset", "token": "secret", "cache_dir": "/c"})
    ]


@pytest.mark.parametrize(
    ("address", "content", "said"),
    [
        ("REMOTE:", b"{}", "expected a repository, as in REMOTE:owner/name"),
        ("REMOTE:a/b", OSError("no such file\nmore"), "cannot be read: no such file. Mind the spelling"),
        ("REMOTE:a/b", b"{", "cannot be read: Expecting property name"),
        ("REMOTE:a/b", b"\xff", "cannot be read: 'utf-8' codec"),
        ("REMOTE:a/b", b"[]", "expected a mapping of names to entries, found list"),
    ],
)
def test_what_is_wrong_with_a_remote_dataset_info_is_one_line(hub_file, address, content, said):
    hub_file(content)
    with pytest.raises(ConfigError) as caught:
        fetched(address, {}.get)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
