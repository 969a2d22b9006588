"""References: what LLaMA-Factory makes of the same rows (golden/llamafactory_cases.jsonl) where it is not mistaken, and
messages written by hand after the OpenAI API's documentation."""

import json

import pytest
from ftk import ChatExample, DataError, DatasetEntry, FeedbackExample, Media, Message, PairExample, Text, ToolCall
from ftk_openai.converting import convert

USER = {"role": "user", "content": "u"}
ANSWER = {"role": "assistant", "content": "a"}


def entry(**fields):
    return DatasetEntry("made", fields, "the test", "/data")


def converted(*messages, fields=None, **row):
    return convert({"messages": list(messages), **row}, entry(**(fields or {})))


def call(name, arguments, **more):
    return {**more, "type": "function", "function": {"name": name, "arguments": arguments}}


def test_a_row_with_calls_and_results_is_what_llamafactory_makes_of_it(golden_cases):
    """Results are messages of their own here: the peer joins them in Qwen's way, whatever the template. Its system text
    gets a newline at the end, and a row without tools gets one that nobody wrote; both are its mistakes."""
    case, broken = golden_cases("converter", "openai")
    made = convert(case["input"], entry(tags={"observation_tag": "tool"}))
    system, question, calls, *results, answer = made.messages
    expected = case["expected"]
    assert system.content + "\n" == expected["_system"]
    assert [{"role": "user", "content": question.content}] == expected["_prompt"][:1]
    written = [{"name": one.name, "arguments": one.arguments} for one in calls.tool_calls]
    assert written == json.loads(expected["_prompt"][1]["content"])
    joined = "\n</tool_response>\n<tool_response>\n".join(result.content for result in results)
    assert joined == expected["_prompt"][2]["content"]
    assert [{"role": "assistant", "content": answer.content}] == expected["_response"]
    assert made.tools == ()
    assert broken["expected"]["_system"] == "detailed thinking off"
    assert [turn.role for turn in convert(broken["input"], entry()).messages] == ["assistant", "user"]


def test_developer_is_system_and_no_system_is_invented():
    assert converted({"role": "developer", "content": "S"}, USER, ANSWER).messages[0] == Message("system", "S")
    assert converted(USER, ANSWER) == ChatExample((Message("user", "u"), Message("assistant", "a")))


@pytest.mark.parametrize("arguments", [{"city": "Zürich"}, '{"city": "Zürich"}', '{"city":"Z\\u00fcrich"}'])
def test_arguments_are_an_object_however_they_were_written(arguments):
    made = converted(USER, {"role": "assistant", "content": None, "tool_calls": [call("look", arguments)]})
    assert made.messages[1] == Message("assistant", "", tool_calls=(ToolCall("look", {"city": "Zürich"}),))


@pytest.mark.parametrize("arguments", ["", " ", None, {}, "{}"])
def test_no_arguments_are_an_empty_object(arguments):
    assert converted(USER, {**ANSWER, "tool_calls": [call("f", arguments)]}).messages[1].tool_calls == (
        ToolCall("f", {}),
    )


def test_parallel_calls_and_their_results_keep_their_ids():
    made = converted(
        USER,
        {"role": "assistant", "tool_calls": [call("f", "{}", id="1"), call("g", "{}", id="2")]},
        {"role": "tool", "content": "r2", "tool_call_id": "2"},
        {"role": "tool", "content": "r1", "tool_call_id": "1"},
        ANSWER,
    )
    assert [one.id for one in made.messages[1].tool_calls] == ["1", "2"]
    assert [(one.content, one.call_id) for one in made.messages[2:4]] == [("r2", "2"), ("r1", "1")]


def test_the_older_functions_are_the_tools_of_a_row_that_has_no_others():
    older, newer = {"name": "f", "parameters": {}}, {"type": "function", "function": {"name": "g", "parameters": {}}}
    row = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "functions": [older]}
    assert convert(row, entry()).tools == ({"type": "function", "function": older},)
    assert convert({**row, "tools": [newer]}, entry()).tools == (newer,)
    assert convert(row, entry(columns={"tools": None})).tools == ()
    assert set(row) == {"messages", "functions"}


def test_the_older_function_call_is_read():
    made = converted(
        USER,
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": '{"a": 1}'}},
        {"role": "function", "name": "f", "content": "r"},
        ANSWER,
    )
    assert made.messages[1].tool_calls == (ToolCall("f", {"a": 1}),)
    assert made.messages[2] == Message("tool", "r")


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning_is_read_under_all_its_names(key):
    assert converted(USER, {**ANSWER, key: "hm"}).messages[1].reasoning == "hm"
    assert converted(USER, {**ANSWER, key: None}).messages[1].reasoning is None


def test_parts_of_all_kinds_are_read():
    parts = [
        {"type": "text", "text": "see "},
        {"type": "image_url", "image_url": {"url": "https://host/1.png", "detail": "low"}},
        {"type": "image", "image": "2.png"},
        {"type": "image", "path": "3.png"},
        {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "mp3"}},
        {"type": "video", "video": {"bytes": None, "path": "/4.mp4"}},
        {"type": "image"},
        "!",
    ]
    made = converted({"role": "user", "content": parts}, ANSWER, i=[b"raw"], fields={"columns": {"images": "i"}})
    assert made.messages[0].content == (
        Text("see "), Media("image", "https://host/1.png"), Media("image", "/data/2.png"),
        Media("image", "/data/3.png"), Media("audio", "data:audio/mp3;base64,QUJD"), Media("video", "/4.mp4"),
        Media("image", b"raw"), Text("!"),
    )  # fmt: skip


def test_parts_that_are_text_thought_and_calls_are_what_the_flat_message_is():
    parts = [
        {"type": "reasoning", "value": "hm"},
        {"type": "text", "text": "I "},
        {"type": "text", "text": "look"},
        {"type": "tool_call", "value": '{"name": "f", "arguments": {}}'},
    ]
    flat = {"role": "assistant", "content": "I look", "reasoning_content": "hm", "tool_calls": [call("f", {})]}
    assert converted(USER, {"role": "assistant", "content": parts}) == converted(USER, flat)


def test_weights_and_flags_are_read_for_each_message():
    made = converted(USER, {**ANSWER, "weight": 0}, USER, {**ANSWER, "weight": 0.5}, USER, {**ANSWER, "train": False})
    assert [(one.trained, one.weight) for one in made.messages if one.role == "assistant"] == [
        (False, 1.0), (None, 0.5), (False, 1.0),
    ]  # fmt: skip


def test_tools_may_be_wrapped_bare_or_json():
    bare = {"name": "look", "parameters": {}}
    wrapped = {"type": "function", "function": bare}
    for tools in (
        [bare],
        [wrapped],
        json.dumps([wrapped]),
        json.dumps(bare),
        [json.dumps(bare)],
        [{"type": "function", **bare}],
    ):
        assert converted(USER, ANSWER, tools=tools).tools == (wrapped,)
    for tools in (None, "", "[]", []):
        assert converted(USER, ANSWER, tools=tools).tools == ()


def test_pairs_are_read_in_the_layouts_of_trl():
    expected = PairExample((Message("user", "u"),), (Message("assistant", "g"),), (Message("assistant", "b"),))
    good, bad = {"role": "assistant", "content": "g"}, {"role": "assistant", "content": "b"}
    for row in (
        {"prompt": [USER], "chosen": [good], "rejected": [bad]},
        {"prompt": "u", "chosen": "g", "rejected": "b"},
        {"prompt": "u", "chosen": [good], "rejected": [bad]},
        {"messages": [USER], "chosen": good, "rejected": bad},
        {"prompt": "u", "chosen": [USER, good], "rejected": [USER, bad]},
        {"chosen": [USER, good], "rejected": [USER, bad]},
    ):
        assert convert(row, entry(ranking=True)) == expected
    same = convert({"chosen": [USER, good], "rejected": [USER, good]}, entry(ranking=True))
    assert same.chosen == same.rejected == (Message("assistant", "g"),)


def test_feedback_is_read():
    made = converted(USER, ANSWER, label=True, fields={"columns": {"kto_tag": "label"}})
    assert made == FeedbackExample((Message("user", "u"), Message("assistant", "a")), True)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"role": "human", "content": "x"}, "messages, turn 1: role: expected one of system, developer, user, "),
        ({"role": "user", "content": {"text": "x"}}, "turn 1: content: expected text, found dict"),
        ({"role": "user", "content": [{"text": "x"}]}, "expected parts with a type"),
        ({"role": "user", "content": [{"type": "smell"}]}, "a part of type str 'smell' is not known"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": 3}]}, "expected a path or bytes as a medium"),
        ({"role": "user", "content": [{"type": "image"}]}, "more <image> placeholders than images"),
        ({"role": "user", "content": [{"type": "tool_call", "value": {"name": "f"}}]}, "only the assistant does"),
        ({"role": "assistant", "tool_calls": [{"function": {"arguments": "{}"}}]}, "expected a call with a name"),
        ({"role": "assistant", "tool_calls": [call("f", "{")]}, "tool_calls: arguments of f: is no JSON"),
        ({"role": "assistant", "tool_calls": [call("f", "[1]")]}, "arguments of f: expected an object"),
        ({"role": "assistant", "tool_calls": [call("f", {}, id=3)]}, "id of f: expected text, found int 3"),
        ({"role": "assistant", "tool_calls": [call("f", {"a": b"x"})]}, "cannot be written as JSON"),
        ({"role": "assistant", "content": "a", "reasoning": 3}, "reasoning: expected text, found int 3"),
        ({"role": "assistant", "content": "a", "weight": float("nan")}, "weight: expected a number from 0"),
        ({"role": "tool", "content": "r"}, "begins with a tool's result"),
    ],
)
def test_malformed_messages_say_what_is_wrong(message, reason):
    with pytest.raises(DataError) as caught:
        converted(message)
    assert reason in str(caught.value)


GOOD = [
    {
        "messages": [
            {"role": "developer", "content": "S"},
            {"role": "user", "content": [{"type": "text", "text": "u"}, {"type": "image_url", "image_url": "x"}]},
            {"role": "assistant", "reasoning_content": "r", "tool_calls": [call("f", '{"a": 1}', id="1")]},
            {"role": "tool", "content": "r", "tool_call_id": "1"},
            {"role": "assistant", "content": "a", "weight": 0.5},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
        "label": True,
        "images": ["1.png"],
    },
    {"prompt": [USER], "chosen": [USER, ANSWER], "rejected": "b"},
]  # fmt: skip
ENTRIES = [entry(), entry(ranking=True), entry(columns={"images": "images", "kto_tag": "label"})]


def test_mangled_rows_become_an_example_or_a_reason(survives):
    assert {ChatExample, PairExample, FeedbackExample, DataError} <= survives(convert, GOOD, ENTRIES)
