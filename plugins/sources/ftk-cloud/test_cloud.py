"""Reference: the same bytes on disk, read by ftk-file's own code; the store is fsspec's memory file system."""

import json
from io import BytesIO
from types import SimpleNamespace

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from ftk import DataError, DatasetEntry, PluginError
from ftk_cloud import rows as cloud
from ftk_cloud.rows import open_rows
from ftk_data.files import open_path

ROWS = [{"n": number, "text": "é" * (number % 70)} for number in range(300)]


def entry(address):
    return DatasetEntry("made", {"cloud_file_name": address}, "the test", "")


@pytest.fixture
def store():
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


def content(name):
    if name.endswith(".jsonl"):
        return "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    if name.endswith(".json"):
        return json.dumps(ROWS).encode()
    if name.endswith(".csv"):
        return ("n,text\n" + "".join(f"{row['n']},{row['text']}\n" for row in ROWS)).encode()
    if name.endswith(".txt"):
        return b"one\n\ntwo\n"
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    sink = pa.BufferOutputStream()
    if name.endswith(".parquet"):
        parquet.write_table(pa.Table.from_pylist(ROWS), sink, row_group_size=100)
    else:
        table = pa.Table.from_pylist(ROWS)
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.txt", "a.parquet", "a.arrow"])
def test_rows_of_a_store_are_those_of_the_same_file_on_disk(store, tmp_path, monkeypatch, name):
    monkeypatch.setenv("FTK_CACHE", str(tmp_path / "cache"))
    (tmp_path / name).write_bytes(content(name))
    store.pipe_file(f"/bucket/{name}", content(name))
    here = open_path(DatasetEntry("made", {}, "the test", ""), tmp_path / name)
    there = open_rows(entry(f"memory://bucket/{name}"), None)
    assert list(there) == list(here)
    for index in (1, 150, 299, 400):
        assert list(there.at(index)) == list(here.at(index))
    assert there.where(1) == here.where(1)
    assert hasattr(there, "__len__") == hasattr(here, "__len__")


def test_a_folder_is_read_file_after_file(store):
    for name in ("b/2.jsonl", "1.jsonl", "_SUCCESS", "README.md"):
        store.pipe_file(f"/bucket/{name}", json.dumps({"file": name}).encode())
    rows = open_rows(entry("memory://bucket"), None)
    assert [row["file"] for row in rows] == ["1.jsonl", "b/2.jsonl"]


def test_the_fingerprint_follows_what_is_stored(store):
    store.pipe_file("/bucket/a.jsonl", b'{"n": 1}\n')
    first = open_rows(entry("memory://bucket/a.jsonl"), None).fingerprint()
    assert open_rows(entry("memory://bucket/a.jsonl"), None).fingerprint() == first
    store.pipe_file("/bucket/a.jsonl", b'{"n": 2}\n')
    assert open_rows(entry("memory://bucket/a.jsonl"), None).fingerprint() != first


def test_the_fingerprint_follows_what_a_web_server_says(monkeypatch):
    """Its files have no key but the address, so the header has to be asked for."""
    facts = {"size": 3, "ETag": "a", "name": "x"}
    file = cloud.CloudFile(SimpleNamespace(info=lambda path: facts), "x", "https://host/x")
    first = file.stamp()
    facts["ETag"] = "b"
    assert file.stamp() != first


def test_a_row_that_does_not_parse_is_named_and_reading_goes_on(store):
    store.pipe_file("/bucket/a.jsonl", b'{"n": 1}\n{\n{"n": 3}\n')
    rows = iter(open_rows(entry("memory://bucket/a.jsonl"), None))
    assert next(rows) == {"n": 1}
    with pytest.raises(DataError, match=r"made: memory://bucket/a\.jsonl:2: is no JSON"):
        next(rows)
    assert next(rows) == {"n": 3}


def test_a_long_file_is_read_a_piece_at_a_time(store, monkeypatch):
    """No more is asked of the store than one buffer before the first row is there."""
    monkeypatch.setattr(cloud, "BUFFER", 4096)
    store.pipe_file("/bucket/a.jsonl", content("a.jsonl") * 20)
    asked = []
    opened = MemoryFileSystem._open

    def watched(self, *args, **kwargs):
        return Watched(opened(self, *args, **kwargs).getvalue())

    class Watched(BytesIO):
        def readinto(self, buffer):
            asked.append(len(buffer))
            return super().readinto(buffer)

    monkeypatch.setattr(MemoryFileSystem, "_open", watched)
    rows = iter(open_rows(entry("memory://bucket/a.jsonl"), None))
    next(rows)
    assert sum(asked) <= 3 * 4096 < len(content("a.jsonl"))


def test_a_store_is_asked_without_credentials_first(store, monkeypatch):
    store.pipe_file("/bucket/a.jsonl", b'{"n": 1}\n')
    asked = []

    def url_to_fs(address, **options):
        asked.append(options)
        if options.get("anon"):
            raise PermissionError("Forbidden")
        return store, "/bucket/a.jsonl"

    monkeypatch.setattr("fsspec.core.url_to_fs", url_to_fs)
    assert list(open_rows(entry("s3://bucket/a.jsonl"), None)) == [{"n": 1}]
    assert asked == [{"anon": True}, {}]


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("memory://bucket/none.jsonl", r"none\.jsonl: cannot be read: there is nothing\. Mind the spelling"),
        ("memory://bucket/a.xlsx", r"of no known type"),
        ("bucket/a.jsonl", r"expected an address such as s3://"),
        ("nonsense://bucket/a.jsonl", r"cannot be read: Protocol not known: nonsense"),
    ],
)
def test_what_cannot_be_read_says_why(store, address, reason):
    store.pipe_file("/bucket/a.xlsx", b"x")
    with pytest.raises(DataError, match=reason):
        open_rows(entry(address), None)


def test_a_missing_package_is_named(monkeypatch):
    def url_to_fs(address, **options):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", url_to_fs)
    with pytest.raises(PluginError, match=r's3:// is not installed: Install s3fs.*pip install "ftk-cloud\[backend\]"'):
        open_rows(entry("s3://bucket/a.jsonl"), None)
