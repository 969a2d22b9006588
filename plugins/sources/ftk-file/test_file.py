"""References: what was written, by the standard library and pyarrow; line numbers counted by hand."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from ftk import DataError, DatasetEntry
from ftk_file.rows import open_rows

ROWS = [{"instruction": "a", "output": "b"}, {"instruction": "c\u2028d", "output": "é🌏"}]
SHARED = Path(__file__).parents[4] / "shared" / "data"


def rows_of(path, name="data"):
    return open_rows(DatasetEntry(name, {"file_name": path.name}, "the test", str(path.parent)), None)


def written(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def write_arrow(path, *, stream):
    pa = pytest.importorskip("pyarrow")
    table = pa.Table.from_pylist(ROWS)
    make = pa.ipc.new_stream if stream else pa.ipc.new_file
    with pa.OSFile(str(path), "wb") as sink, make(sink, table.schema) as writer:
        writer.write_table(table)


def write_parquet(path):
    pytest.importorskip("pyarrow")
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.Table.from_pylist(ROWS), path)


def write_csv(path):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["instruction", "output"])
        writer.writeheader()
        writer.writerows(ROWS)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.json", lambda path: path.write_text(json.dumps(ROWS))),
        ("pretty.json", lambda path: path.write_text(json.dumps(ROWS, indent=2, ensure_ascii=False))),
        ("lines.json", lambda path: path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))),
        ("a.jsonl", lambda path: path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS))),
        ("bom.jsonl", lambda path: path.write_text("\ufeff" + "\r\n\r\n".join(json.dumps(row) for row in ROWS))),
        ("a.csv", write_csv),
        ("a.parquet", write_parquet),
        ("stream.arrow", lambda path: write_arrow(path, stream=True)),
        ("file.arrow", lambda path: write_arrow(path, stream=False)),
    ],
)
def test_rows_come_back_as_they_were_written(tmp_path, name, write):
    write(tmp_path / name)
    assert list(rows_of(tmp_path / name)) == ROWS


def test_text_has_a_row_for_each_line_that_is_not_empty(tmp_path):
    rows = rows_of(written(tmp_path / "a.txt", "one\n\n two \n"))
    assert list(rows) == [{"text": "one"}, {"text": " two "}]
    assert rows.where(1) == "a.txt:3"


def test_a_folder_is_read_file_after_file(tmp_path):
    (tmp_path / "many").mkdir()
    for number in range(2):
        written(tmp_path / "many" / f"{number}.jsonl", f'{{"n": {number}}}\n\n{{"n": {number + 10}}}\n')
    rows = rows_of(tmp_path / "many")
    assert [row["n"] for row in rows] == [0, 10, 1, 11]
    assert rows.where(3) == "1.jsonl:3"


def test_a_folder_of_several_types_is_refused(tmp_path):
    for name in ("a.json", "b.csv"):
        written(tmp_path / name, "")
    with pytest.raises(DataError, match=r"holds files of 2 types \(.csv, .json\)"):
        rows_of(tmp_path)


def test_a_missing_file_names_those_beside_it(tmp_path):
    written(tmp_path / "alpaca.json", "[]")
    with pytest.raises(DataError, match=r"data: .*alpca\.json: does not exist \(.* has alpaca\.json\).*the test"):
        rows_of(tmp_path / "alpca.json")


def test_an_unknown_type_lists_the_known_ones(tmp_path):
    with pytest.raises(DataError, match=r"of no known type\. Known: \.arrow, \.csv, \.json, "):
        rows_of(written(tmp_path / "a.xlsx", ""))


def test_a_line_that_does_not_parse_is_named_and_reading_goes_on(tmp_path):
    rows = iter(rows_of(written(tmp_path / "a.jsonl", '{"n": 1}\n\n{"n": \n[]\n{"n": 4}\n')))
    assert next(rows) == {"n": 1}
    with pytest.raises(DataError, match=r'^data: .*a\.jsonl:3: is no JSON: Expecting value, column 7: {"n":$'):
        next(rows)
    with pytest.raises(DataError, match=r"a\.jsonl:4: expected an object, found list: \[\]"):
        next(rows)
    assert list(rows) == [{"n": 4}]


def test_an_array_that_does_not_parse_names_line_and_column_and_stays_broken(tmp_path):
    rows = iter(rows_of(written(tmp_path / "a.json", '[\n {"n": 1},\n {"n": }\n]')))
    for _ in range(2):
        with pytest.raises(DataError, match=r"a\.json:3:8: is no JSON: Expecting value"):
            next(rows)


def test_a_row_of_an_array_is_found_by_its_line(tmp_path):
    text = '[\n {"a": ",]\\n["},\n {"a":\n  2}, 7,\n {"a": 3}\n]'
    rows = rows_of(written(tmp_path / "a.json", text))
    reading = iter(rows)
    assert [next(reading), next(reading)] == [{"a": ",]\n["}, {"a": 2}]
    with pytest.raises(DataError, match=r"a\.json:4, row 3: expected an object, found int"):
        next(reading)
    assert next(reading) == {"a": 3}
    assert [rows.where(index) for index in (0, 1, 3)] == ["a.json:2, row 1", "a.json:3, row 2", "a.json:5, row 4"]


def test_a_csv_row_of_another_width_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"a\.csv:3: has 3 values for the 2 columns of line 1"):
        list(rows_of(written(tmp_path / "a.csv", "x,y\n1,2\n1,2,3\n")))


def test_what_is_no_utf8_and_no_parquet_says_so(tmp_path):
    (tmp_path / "a.json").write_bytes(b'["\xff"]')
    (tmp_path / "a.parquet").write_bytes(b"nothing")
    pytest.importorskip("pyarrow")
    for name, reason in (("a.json", "is not UTF-8"), ("a.parquet", "cannot be read")):
        with pytest.raises(DataError, match=reason):
            list(rows_of(tmp_path / name))


def test_the_fingerprint_follows_the_content(tmp_path):
    path = written(tmp_path / "a.jsonl", '{"n": 1}\n')
    first = rows_of(path).fingerprint()
    assert rows_of(path).fingerprint() == first
    assert rows_of(written(path, '{"n": 2}\n')).fingerprint() != first


def test_reading_json_imports_no_library_of_the_field(tmp_path):
    written(tmp_path / "a.jsonl", '{"n": 1}\n')
    code = (
        "import sys; from ftk import DatasetEntry; from ftk_file.rows import open_rows\n"
        f"list(open_rows(DatasetEntry('d', {{'file_name': 'a.jsonl'}}, 'x', {str(tmp_path)!r}), None))\n"
        "print([m for m in ('torch', 'datasets', 'pandas', 'pyarrow', 'transformers', 'numpy') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@pytest.mark.parametrize(
    "name", ["alpaca_en_demo.json", "c4_demo.jsonl", "wiki_demo.txt", "glaive_toolcall_zh_demo.json"]
)
def test_real_files_are_read_to_the_end(name):
    path = SHARED / "llamafactory" / name
    if not path.exists():
        pytest.skip(f"{path} is not there")
    text = path.read_text(encoding="utf-8")
    expected = len(json.loads(text)) if path.suffix == ".json" else sum(bool(line.strip()) for line in text.split("\n"))
    assert len(list(rows_of(path))) == expected
