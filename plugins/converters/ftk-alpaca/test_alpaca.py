"""Reference: what LLaMA-Factory makes of the same rows (golden/llamafactory_cases.jsonl)."""

import pytest
from ftk import ChatExample, DataError, DatasetEntry, FeedbackExample, Media, Message, PairExample, Text, TextExample
from ftk_alpaca.converting import convert


def entry(**fields):
    return DatasetEntry("made", fields, "the test", "/data")


def converted(row, **fields):
    return convert(row, entry(**fields))


def test_demo_rows_become_what_llamafactory_makes_of_them(golden_cases, demo_row):
    cases = golden_cases("converter_demo_row", "alpaca")
    assert len(cases) == 12
    for case in cases:
        row, fields = demo_row(case)
        made = convert(row, entry(**fields))
        expected = [turn["content"] for turn in [*case["expected"]["_prompt"], *case["expected"]["_response"]]]
        said = [made.text] if isinstance(made, TextExample) else [message.content for message in made.messages]
        assert said == expected


def test_made_rows_become_what_llamafactory_makes_of_them(golden_cases):
    """The peer keeps a row without an answer; here it holds nothing to learn unless the entry says that none comes."""
    for case in golden_cases("converter", "alpaca"):
        columns, expected = dict(case["dataset_attr"]), case["expected"]
        if case["input"]["output"] is None:
            assert converted(case["input"]) is None
            columns["response"] = None
        made = converted(case["input"], columns=columns) if columns else converted(case["input"])
        answers = [turn["content"] for turn in expected["_response"] if turn["content"]]
        assert [turn.content for turn in made.messages] == [expected["_prompt"][0]["content"], *answers]
        if isinstance(made, FeedbackExample):
            assert made.desirable == bool(expected["_response"][0]["content"])


def test_the_question_is_prompt_and_query_with_a_newline_between():
    made = converted({"instruction": "Add", "input": "1 2", "output": "3"})
    assert made == ChatExample((Message("user", "Add\n1 2"), Message("assistant", "3")))
    assert converted({"instruction": "", "input": "only", "output": "x"}).messages[0].content == "only"


def test_columns_that_are_not_named_keep_their_names_where_a_row_has_them():
    assert converted({"instruction": "Add", "output": "3"}).messages[0].content == "Add"
    row = {"instruction": "Add", "input": "1 2", "output": "3", "system": "S", "role": "R", "history": [["a", "b"]]}
    made = converted(row)
    assert [one.content for one in made.messages] == ["S", "a", "b", "Add\n1 2", "3"]
    assert converted(row, columns={"system": "role"}).messages[0].content == "R"
    assert converted(row, columns={"prompt": "instruction", "response": "output"}) == made


def test_input_belongs_to_instruction_only():
    columns = {"prompt": "q", "response": "a"}
    assert converted({"q": "Add", "a": "3", "input": "unread"}, columns=columns).messages[0].content == "Add"
    made = converted({"input": "Add", "target": "3"}, columns={"prompt": "input", "response": "target"})
    assert made.messages[0].content == "Add"


def test_a_column_that_is_null_is_not_there():
    row = {"instruction": "Add", "input": "unread", "output": "3", "system": "unread"}
    made = converted(row, columns={"query": None, "system": None})
    assert [one.content for one in made.messages] == ["Add", "3"]
    assert converted(row, columns={"prompt": None, "response": "output", "system": None}).messages[0].content == ""
    prompt = converted(row, columns={"response": None, "query": None, "system": None})
    assert prompt == ChatExample((Message("user", "Add"),))


def test_rows_may_lack_a_named_column_but_a_slip_of_the_pen_is_told():
    columns = {"prompt": "q", "response": "a", "system": "role", "history": "before", "tools": "t"}
    assert [one.content for one in converted({"q": "u", "a": "v"}, columns=columns).messages] == ["u", "v"]
    with pytest.raises(DataError, match=r"has no column 'before'\. Did you mean 'befores'"):
        converted({"q": "u", "a": "v", "befores": []}, columns=columns)


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
        ({"instrution": "a", "output": "b"}, {}, "has no column 'instruction'"),
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


GOOD = [
    {"instruction": "Add", "input": "1 2", "output": "3", "system": "S", "history": [["a", "b"]], "tools": "[]"},
    {"instruction": "<image>", "output": "a", "images": ["1.png"], "label": True, "chosen": "c", "rejected": "d"},
]
ENTRIES = [
    entry(),
    entry(columns={"images": "images", "kto_tag": "label"}),
    entry(ranking=True),
    entry(columns={"prompt": "input"}),
]


def test_mangled_rows_become_an_example_or_a_reason(survives):
    kinds = {TextExample, ChatExample, PairExample, FeedbackExample, DataError}
    assert kinds <= survives(convert, GOOD, ENTRIES)
