"""Reference: what LLaMA-Factory makes of the same rows (golden/llamafactory_cases.jsonl)."""

import json
from pathlib import Path

import pytest
from ftk import ChatExample, DataError, DatasetEntry, FeedbackExample, Media, Message, PairExample, Text, TextExample
from ftk_alpaca.converting import convert

SHARED = Path(__file__).parents[4] / "shared"
CASES = SHARED / "golden" / "llamafactory_cases.jsonl"


def entry(**fields):
    return DatasetEntry("made", fields, "the test", "/data")


def converted(row, **fields):
    return convert(row, entry(**fields))


def demo_rows():
    cases = [json.loads(line) for line in CASES.open()] if CASES.exists() else []
    return [case for case in cases if case["kind"] == "converter_demo_row" and case["formatting"] == "alpaca"]


def demo_row(case):
    path = SHARED / "data" / "llamafactory" / case["file"]
    if path.suffix == ".json":
        return json.loads(path.read_text())[case["row"]]
    line = path.read_text().split("\n")[case["row"]]
    return json.loads(line) if path.suffix == ".jsonl" else {"text": line}


@pytest.mark.parametrize("case", demo_rows() or [None])
def test_demo_rows_become_what_llamafactory_makes_of_them(case):
    if case is None:
        pytest.skip(f"{CASES} is not there")
    info = json.loads((SHARED / "data" / "llamafactory" / "dataset_info.json").read_text())[case["dataset"]]
    made = converted(demo_row(case), **info)
    expected = [turn["content"] for turn in [*case["expected"]["_prompt"], *case["expected"]["_response"]]]
    if isinstance(made, TextExample):
        assert [made.text] == expected
    else:
        assert [message.content for message in made.messages] == expected


def test_the_question_is_prompt_and_query_with_a_newline_between():
    made = converted({"instruction": "Add", "input": "1 2", "output": "3"})
    assert made == ChatExample((Message("user", "Add\n1 2"), Message("assistant", "3")))
    assert converted({"instruction": "", "input": "only", "output": "x"}).messages[0].content == "only"


def test_without_columns_the_input_may_be_missing_and_with_columns_only_those_are_read():
    assert converted({"instruction": "Add", "output": "3"}).messages[0].content == "Add"
    columns = {"prompt": "q", "response": "a"}
    assert converted({"q": "Add", "a": "3", "input": "unread"}, columns=columns).messages[0].content == "Add"


def test_history_and_system_come_first():
    row = {"q": "c", "a": "d", "h": [["a", "b"]], "s": "Be"}
    made = converted(row, columns={"prompt": "q", "response": "a", "history": "h", "system": "s"})
    assert [(m.role, m.content) for m in made.messages] == [
        ("system", "Be"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"),
    ]  # fmt: skip


def test_a_prompt_alone_is_text():
    assert converted({"text": "Once"}, columns={"prompt": "text"}) == TextExample("Once")


def test_ranking_is_a_pair():
    row = {"instruction": "Add", "input": "", "good": "3", "bad": "4"}
    columns = {"prompt": "instruction", "query": "input", "chosen": "good", "rejected": "bad"}
    made = converted(row, columns=columns, ranking=True)
    assert made == PairExample((Message("user", "Add"),), (Message("assistant", "3"),), (Message("assistant", "4"),))


@pytest.mark.parametrize("liked", [True, False])
def test_a_kto_tag_is_feedback(liked):
    columns = {"prompt": "q", "response": "a", "kto_tag": "ok"}
    made = converted({"q": "I", "a": "O", "ok": liked}, columns=columns)
    assert made == FeedbackExample((Message("user", "I"), Message("assistant", "O")), liked)


@pytest.mark.parametrize("answer", ["", None])
def test_an_empty_answer_holds_nothing_to_learn(answer):
    assert converted({"instruction": "a", "input": "", "output": answer}) is None


def test_tools_may_be_json_and_get_the_openai_form():
    columns = {"prompt": "q", "response": "a", "tools": "t"}
    made = converted({"q": "?", "a": "!", "t": '[{"name": "look"}]'}, columns=columns)
    assert made.tools == ({"type": "function", "function": {"name": "look"}},)


def test_placeholders_take_the_media_in_order():
    columns = {"prompt": "q", "response": "a", "images": "i"}
    made = converted({"q": "<image>see<image>", "a": "!", "i": ["1.jpg", b"raw"]}, columns=columns)
    assert made.messages[0].content == (Media("image", "/data/1.jpg"), Text("see"), Media("image", b"raw"))


@pytest.mark.parametrize(
    ("row", "columns", "reason"),
    [
        ({"instruction": "a", "answer": "b"}, {}, "has no column 'output'. Its columns: instruction, answer"),
        ({"instruction": "a", "input": "", "output": 7}, {}, "output: expected text, found int 7"),
        ({"instruction": ["a"], "output": "b"}, {}, "instruction: expected text, found list"),
        ({"q": "", "a": "b", "h": [["x"]]}, {"history": "h"}, "h: expected pairs"),
        ({"q": "", "a": "b", "k": 1}, {"kto_tag": "k"}, "k: expected true or false"),
        ({"q": "", "a": "b", "t": "[{"}, {"tools": "t"}, "t: is no JSON"),
        ({"q": "<image>", "a": "b", "i": []}, {"images": "i"}, "more <image> placeholders"),
        ({"q": "", "a": "b", "i": ["x"]}, {"images": "i"}, "1 images more than"),
    ],
)
def test_malformed_rows_say_what_is_wrong(row, columns, reason):
    fields = {"columns": {"prompt": "q", "response": "a", **columns}} if columns else {}
    with pytest.raises(DataError) as caught:
        converted(row, **fields)
    assert reason in str(caught.value)
