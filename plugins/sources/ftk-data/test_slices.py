"""Parts of splits. Reference: ``ReadInstruction`` of the datasets library, which reads the same words."""

import json
import logging

import pytest
from ftk import DataError, DatasetEntry
from ftk_data.files import open_path
from ftk_data.slices import of_file, split_of

PARTS = ["train", "train[:3]", "train[3:]", "train[2:5]", "train[-2:]", "train[:-2]", "train[:10%]", "train[3%:75%]",
         "train[-30%:]", "train[5:2]", "train[0:0]", "train[7%:]", "train[:]", "train[100%:]"]  # fmt: skip


def entry(path, **fields):
    return DatasetEntry("made", {"file_name": path.name, **fields}, "the test", str(path.parent))


def opened(path, **fields):
    return of_file(entry(path, **fields), open_path(entry(path, **fields), path))


def file_of(folder, num, name="rows.jsonl"):
    path = folder / name
    lines = [json.dumps({"n": number}) for number in range(num)]
    path.write_text("\n".join(lines) if name.endswith("l") else "n\n" + "".join(f"{n}\n" for n in range(num)))
    return path


@pytest.mark.parametrize("num", [0, 1, 7, 10])
@pytest.mark.parametrize("part", PARTS)
def test_a_part_is_what_the_datasets_library_takes(tmp_path, part, num):
    reader = pytest.importorskip("datasets.arrow_reader")
    (wanted,) = reader.ReadInstruction.from_spec(part).to_absolute({"train": num})
    numbers = list(range(num))[wanted.from_ : wanted.to]
    rows = opened(file_of(tmp_path, num), split=part)
    assert len(rows) == len(numbers)
    assert [row["n"] for row in rows] == numbers
    for index in range(len(numbers) + 2):
        assert [row["n"] for row in rows.at(index)] == numbers[index:]
    if numbers:
        assert rows.where(len(numbers) - 1) == f"rows.jsonl:{numbers[-1] + 1}"


def test_a_part_of_a_csv_is_counted_by_reading_it(tmp_path):
    rows = opened(file_of(tmp_path, 9, "rows.csv"), split="train[-3:]")
    assert [row["n"] for row in rows] == ["6", "7", "8"]


def test_a_row_that_does_not_parse_is_one_of_a_part(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"n": 0}\nbroken\n{"n": 2}\n{"n": 3}\n')
    rows = iter(opened(path, split="train[:3]"))
    assert next(rows) == {"n": 0}
    with pytest.raises(DataError, match=r"rows\.jsonl:2"):
        next(rows)
    assert list(rows) == [{"n": 2}]


def test_the_part_is_in_the_fingerprint(tmp_path):
    path = file_of(tmp_path, 5)
    assert len({opened(path, split=part).fingerprint() for part in ("train", "train[:2]", "train[1:2]")}) == 3


@pytest.mark.parametrize("split", ["train[", "train[1]", "train[:%]", "train[a:]", "[1:2]", "train[1:2][3:4]"])
def test_what_is_no_split_is_said(tmp_path, split):
    with pytest.raises(DataError, match=r"made \(the test\): split: .*expected a name"):
        split_of(entry(tmp_path / "x.jsonl", split=split))


def test_files_have_no_other_split_and_no_subsets(tmp_path, caplog):
    path = file_of(tmp_path, 2)
    with pytest.raises(DataError, match=r"split: test: files have no splits but train"):
        opened(path, split="test")
    with caplog.at_level(logging.WARNING, logger="ftk.data"):
        assert len(opened(path, subset="en", folder="x")) == 2
    assert [record.getMessage() for record in caplog.records] == [
        "made (the test): subset has no effect on files",
        "made (the test): folder has no effect on files",
    ]
