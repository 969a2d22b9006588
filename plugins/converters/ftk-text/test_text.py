"""Reference: the rows themselves, of which one column is the text."""

import pytest
from ftk import DataError, DatasetEntry, TextExample
from ftk_text import convert


def converted(row, **columns):
    return convert(row, DatasetEntry("made", {"columns": columns} if columns else {}, "the test", ""))


def test_the_text_column_is_the_text():
    assert converted({"text": "Once", "url": "x"}) == TextExample("Once")
    assert converted({"body": "Once"}, text="body") == converted({"body": "Once"}, prompt="body") == TextExample("Once")


@pytest.mark.parametrize("said", ["", None, " \n"])
def test_an_empty_text_holds_nothing_to_learn(said):
    assert converted({"text": said}) is None


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"body": "x"}, "has no column 'text'. Its columns: body"),
        ({"text": 3}, "text: expected text, found int 3"),
        ({"text": "a\ud800"}, "text: holds half of a surrogate pair at character 1"),
    ],
)
def test_malformed_rows_say_what_is_wrong(row, reason):
    with pytest.raises(DataError) as caught:
        converted(row)
    assert reason in str(caught.value)


def test_mangled_rows_become_an_example_or_a_reason(survives):
    rows = [{"text": "Once", "url": "x"}, {"text": "", "meta": {"a": [1]}}]
    assert {TextExample, DataError} <= survives(convert, rows, [DatasetEntry("made", {}, "the test", "")])
