"""References: what was written, by the standard library and pyarrow; line numbers counted by hand. Reading from a row
on is compared with reading everything."""

import csv
import json
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from ftk import DataError, DatasetEntry
from ftk_data.offsets import LineIndex
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


# From a row on


def many(path):
    """2,500 rows in the format of the name; blank lines and a broken row among the lines."""
    rows = [{"n": str(number), "text": "x" * (number % 50)} for number in range(2500)]
    if path.suffix == ".jsonl":
        lines = [json.dumps(row) for row in rows]
        lines[700] = "{broken"
        text = "\n".join(line if number % 100 else f"{line}\r\n \n" for number, line in enumerate(lines))
        path.write_bytes(b"\xef\xbb\xbf\n" + text.encode())
    elif path.suffix == ".json":
        path.write_text(json.dumps([*rows[:700], 7, *rows[701:]]))
    elif path.suffix == ".txt":
        path.write_text("\n\n".join(row["n"] for row in rows) + "\n")
    elif path.suffix == ".csv":
        path.write_text("n,text\n" + "".join(f'{row["n"]},"{row["text"]}\n"\n' for row in rows) + "1\n\n2,3\n")
    else:
        pa = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        table = pa.Table.from_pylist(rows)
        if path.suffix == ".parquet":
            parquet.write_table(table, path, row_group_size=600)
        else:
            make = pa.ipc.new_stream if "stream" in path.name else pa.ipc.new_file
            with pa.OSFile(str(path), "wb") as sink, make(sink, table.schema) as writer:
                writer.write_table(table, max_chunksize=600)
    return path


def taken(rows):
    """The rows of an iterator, and the messages in the place of those that do not parse."""
    made, iterator = [], iter(rows)
    while True:
        try:
            made.append(next(iterator))
        except StopIteration:
            return made
        except DataError as error:
            made.append(str(error))


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.txt", "a.csv", "a.parquet", "a.arrow", "stream.arrow"])
def test_reading_from_a_row_on_gives_what_reading_everything_gives(tmp_path, monkeypatch, name):
    monkeypatch.setenv("FTK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("ftk_data.offsets.STRETCH", 5000)
    path = many(tmp_path / name)
    everything = taken(rows_of(path))
    assert len(everything) >= 2500
    for _ in range(2):  # the second time with what the first has kept
        for index in (0, 1, 599, 600, 699, 700, 701, 1999, len(everything) - 1, len(everything), 9999):
            assert taken(rows_of(path).at(index)) == everything[index:]
    rows = rows_of(path)
    if path.suffix not in (".json", ".csv"):
        assert len(rows) == len(everything)


def test_reading_from_a_row_on_works_across_files(tmp_path):
    (tmp_path / "many").mkdir()
    for number, size in enumerate((3, 0, 2, 5)):
        written(tmp_path / "many" / f"{number}.jsonl", "".join(f'{{"n": "{number}-{row}"}}\n' for row in range(size)))
    rows = rows_of(tmp_path / "many")
    everything = list(rows)
    assert len(rows) == len(everything) == 10
    for index in range(12):
        assert list(rows.at(index)) == everything[index:]
    assert [rows.where(index) for index in (2, 3, 9)] == ["0.jsonl:3", "2.jsonl:1", "3.jsonl:5"]


def test_where_a_row_stands_is_known_without_reading_up_to_it(tmp_path, monkeypatch):
    monkeypatch.setenv("FTK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("ftk_data.offsets.STRETCH", 5000)
    path = many(tmp_path / "a.jsonl")
    numbers = [number for number, line in enumerate(path.read_bytes()[3:].split(b"\n"), start=1) if line.strip()]
    fresh, scanned = rows_of(path), rows_of(path)
    assert len(scanned) == 2500
    for index in (0, 1, 700, 699, 2499):
        assert fresh.where(index) == scanned.where(index) == f"a.jsonl:{numbers[index]}"


def test_line_offsets_are_kept_and_made_again_when_damaged_or_old(tmp_path, monkeypatch):
    monkeypatch.setenv("FTK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("ftk_data.offsets.STRETCH", 5000)
    path = many(tmp_path / "a.jsonl")
    expected = taken(rows_of(path))
    len(rows_of(path))
    (kept,) = (tmp_path / "cache" / "offsets").iterdir()
    good = kept.read_text()
    scans = []
    scan = LineIndex._scanned
    monkeypatch.setattr(LineIndex, "_scanned", lambda self: scans.append(1) or scan(self))
    assert taken(rows_of(path).at(2000)) == expected[2000:]
    assert scans == []
    damaged = json.loads(good)
    damaged["marks"][3][1] += 1
    for text in ("", good[:-9], "[]", '{"stamp": 3}', json.dumps(damaged), "\ufeff"):
        kept.write_text(text)
        assert taken(rows_of(path).at(2000)) == expected[2000:]
        assert kept.read_text() == good
    assert len(scans) == 6
    path.write_text('{"n": 1}\n{"n": 2}\n')
    assert taken(rows_of(path).at(1)) == [{"n": 2}]


def test_a_cache_that_cannot_be_written_costs_a_warning_only(tmp_path, monkeypatch, caplog):
    written(tmp_path / "file", "")
    monkeypatch.setenv("FTK_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr("ftk_data.offsets.STRETCH", 5000)
    assert len(rows_of(many(tmp_path / "a.jsonl"))) == 2500
    assert "is not kept" in caplog.text


def test_a_large_file_is_never_in_memory(tmp_path, monkeypatch):
    """Thirty-two mebibytes are indexed, fingerprinted and read; what Python holds meanwhile stays below six."""
    monkeypatch.setenv("FTK_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "a.jsonl"
    with path.open("w") as file:
        for number in range(4096):
            file.write(json.dumps({"n": number, "text": "y" * 8192}) + "\n")
    tracemalloc.start()
    rows = rows_of(path)
    assert len(rows) == 4096
    rows.fingerprint()
    assert sum(1 for _ in rows) == 4096
    assert next(rows.at(4000))["n"] == 4000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6 << 20


# What is not as it should be


def test_a_row_that_is_nested_too_deeply_or_too_long_a_number_is_one_bad_row(tmp_path):
    deep, long = '{"a": ' + "[" * 100_000 + "}", '{"a": ' + "9" * 5000 + "}"
    made = taken(rows_of(written(tmp_path / "a.jsonl", f'{deep}\n{long}\n {{"n": 1}} \n')))
    assert "is nested too deeply" in made[0]
    assert "is no JSON: Exceeds the limit" in made[1]
    assert made[2] == {"n": 1}


def test_a_line_that_is_no_utf8_is_one_bad_row(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"n": "\xff"}\n{"n": 2}\n')
    (tmp_path / "a.txt").write_bytes(b"\xff\ntwo\n")
    for name, last in (("a.jsonl", {"n": 2}), ("a.txt", {"text": "two"})):
        bad, good = taken(rows_of(tmp_path / name))
        assert f"{name}:1: " in bad
        assert "not UTF-8" in bad
        assert good == last


def test_one_object_over_several_lines_is_one_row(tmp_path):
    rows = rows_of(written(tmp_path / "a.json", '{\n "n": [1]\n}\n'))
    assert list(rows) == [{"n": [1]}]
    assert rows.where(0) == "a.json:1, row 1"
    made = taken(rows_of(written(tmp_path / "b.json", '{"n":\n{"n": 2}\n')))
    assert "b.json:1: is no JSON" in made[0]
    assert made[1] == {"n": 2}


def test_a_csv_may_hold_long_texts_and_names_no_column_twice(tmp_path):
    long = "x" * 300_000
    assert list(rows_of(written(tmp_path / "a.csv", f"t\n{long}\n"))) == [{"t": long}]
    with pytest.raises(DataError, match=r"a\.csv:1: names the column 't' twice"):
        list(rows_of(written(tmp_path / "a.csv", "t,t\n1,2\n")))


def test_what_lies_beside_the_rows_of_a_folder_is_left_alone_and_packed_rows_are_refused(tmp_path):
    for name in ("README.md", "dataset_infos.json", "1.png", ".hidden.jsonl"):
        written(tmp_path / name, "x")
    with pytest.raises(DataError, match=r"holds no files of rows"):
        rows_of(tmp_path)
    written(tmp_path / "a.jsonl", '{"n": 1}\n')
    assert list(rows_of(tmp_path)) == [{"n": 1}]
    written(tmp_path / "b.jsonl.gz", "")
    with pytest.raises(DataError, match=r"b\.jsonl\.gz: is packed.*Unpack it"):
        rows_of(tmp_path)


def test_a_file_that_breaks_off_says_so_again_and_again(tmp_path):
    path = many(tmp_path / "a.parquet")
    path.write_bytes(path.read_bytes()[:-200])
    rows = iter(rows_of(path))
    for _ in range(2):
        with pytest.raises(DataError, match=r"a\.parquet: cannot be read"):
            next(rows)
    with pytest.raises(DataError, match="cannot be read"):
        len(rows_of(path))


def mixed_table():
    """Five rows, of which the second has a text that is no UTF-8 and the fourth a date that Python cannot hold."""
    pa = pytest.importorskip("pyarrow")
    raw = pa.array([b"a", b"\xff", b"c", b"d", b"e"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 5, raw.buffers())
    return pa.table({"text": text, "when": pa.array([0, 0, 0, 2**62, 0], pa.timestamp("us"))})


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_a_row_without_a_form_in_python_is_one_bad_row(tmp_path, name):
    pa = pytest.importorskip("pyarrow")
    table = mixed_table()
    if name == "a.parquet":
        from pyarrow import parquet

        parquet.write_table(table, tmp_path / name)
    else:
        with pa.OSFile(str(tmp_path / name), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    for first in range(6):
        rows, good, bad = rows_of(tmp_path / name).at(first), [], []
        while True:
            try:
                good.append(next(rows)["text"])
            except StopIteration:
                break
            except DataError as error:
                bad.append(str(error))
        assert good == [text for number, text in enumerate("a?c?e") if text != "?" and number >= first]
        assert [error.partition(": has a value")[0] for error in bad] == [
            f"data: {tmp_path}/{name}, row {number}" for number in (2, 4) if number > first
        ]


def test_a_column_that_parquet_names_twice_is_refused(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], ["t", "t"]), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: names the column 't' twice"):
        list(rows_of(tmp_path / "a.parquet"))


@pytest.mark.parametrize(
    ("converter", "fields", "row"),
    [
        ("ftk_alpaca.converting", {"columns": {"kto_tag": "label"}},
         {"instruction": "q", "output": "a", "history": [["b", "c"]], "label": True}),
        ("ftk_sharegpt.converting", {"columns": {"kto_tag": "label"}},
         {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "label": False}),
        ("ftk_openai.converting", {}, {"messages": [{"role": "user", "content": "q"}], "tools": [{"name": "f"}]}),
        ("ftk_swift.converting", {}, {"messages": [{"role": "user", "content": "q"}]}),
    ],
)  # fmt: skip
def test_a_csv_holds_lists_as_json_text_and_flags_as_words(tmp_path, converter, fields, row):
    convert = pytest.importorskip(converter).convert
    with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerow({key: json.dumps(one) if isinstance(one, list) else one for key, one in row.items()})
    entry = DatasetEntry("made", {"file_name": "a.csv", **fields}, "the test", str(tmp_path))
    (read,) = rows_of(tmp_path / "a.csv")
    assert convert(read, entry) == convert(row, entry) is not None
