"""Reference: messages written by hand after ms-swift's documentation of custom data sets."""

import pytest
from ftk import (
    ChatExample,
    DataError,
    DatasetEntry,
    FeedbackExample,
    Media,
    Message,
    PairExample,
    Text,
    TextExample,
    ToolCall,
)
from ftk_swift.converting import convert

CHAT = ChatExample((Message("user", "u"), Message("assistant", "a")))


def entry(**fields):
    return DatasetEntry("made", fields, "the test", "/data")


def converted(_columns=None, **row):
    return convert(row, entry(columns=_columns) if _columns else entry())


def turns(*pairs):
    return [{"role": role, "content": content} for role, content in pairs]


def test_all_layouts_of_a_conversation_are_read():
    assert converted(query="u", response="a") == CHAT
    assert converted(messages=turns(("user", "u"), ("assistant", "a"))) == CHAT
    assert converted(conversations=[{"from": "user", "value": "u"}, {"from": "assistant", "value": "a"}]) == CHAT
    assert converted(conversation=[{"human": "u", "assistant": "a"}]) == CHAT
    assert converted(conversation=[{"assistant": "a", "human": "u"}]) == CHAT
    assert converted({"query": "q", "response": "r"}, q="u", r="a") == CHAT


def test_system_and_history_come_first():
    made = converted(system="S", history=[["a", "b"]], query="c", response="d")
    assert [(one.role, one.content) for one in made.messages] == [
        ("system", "S"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"),
    ]  # fmt: skip
    assert converted(system=None, history=None, query="u", response="a") == CHAT


def test_an_answer_alone_is_text_for_pretraining():
    assert converted(response="Once") == converted(messages=turns(("assistant", "Once"))) == TextExample("Once")


def test_calls_and_their_results_are_read():
    made = converted(
        messages=turns(
            ("user", "u"),
            ("tool_call", '{"name": "f", "arguments": {"a": 1}}'),
            ("tool_response", "r"),
            ("assistant", "a"),
        ),
        tools=['{"type": "function", "function": {"name": "f"}}'],
    )
    assert made.messages[1].tool_calls == (ToolCall("f", {"a": 1}),)
    assert made.messages[2] == Message("tool", "r")
    assert made.tools[0]["function"]["name"] == "f"


def test_a_message_says_whether_it_is_trained():
    made = converted(messages=[*turns(("user", "u")), {"role": "assistant", "content": "a", "loss": False}])
    assert made.messages[1].trained is False


def test_a_rejected_answer_makes_a_pair():
    expected = PairExample((Message("user", "u"),), (Message("assistant", "a"),), (Message("assistant", "b"),))
    whole = turns(("user", "u"), ("assistant", "a"))
    assert converted(query="u", response="a", rejected_response="b") == expected
    assert converted(messages=whole, rejected_response="b") == expected
    assert converted(messages=whole, rejected_messages=turns(("user", "u"), ("assistant", "b"))) == expected
    assert converted(query="u", response="a", rejected_response=None) == CHAT
    assert converted(query="u", response="a", rejected_response="") is None


def test_a_label_makes_feedback():
    assert converted(query="u", response="a", label=False) == FeedbackExample(CHAT.messages, False)


def test_media_without_a_mark_stand_at_the_first_question():
    made = converted(history=[["h", "i"]], query="q", response="a", images=["1.png", "2.png"], videos=["f.mp4"])
    assert made.messages[0].content == (
        Media("image", "/data/1.png"), Media("image", "/data/2.png"), Media("video", "/data/f.mp4"), Text("h"),
    )  # fmt: skip
    made = converted(query="see <image>", response="a", images=["1.png"])
    assert made.messages[0].content == (Text("see "), Media("image", "/data/1.png"))


def test_a_pair_shares_its_media():
    made = converted(query="q", response="a", rejected_response="b", images=["1.png"])
    assert made.messages[0].content == (Media("image", "/data/1.png"), Text("q"))
    assert (made.chosen, made.rejected) == ((Message("assistant", "a"),), (Message("assistant", "b"),))


def test_addresses_in_the_text_are_media():
    made = converted(query="<img>http://h/1.png</img>a<audio>b.wav</audio>", response="a")
    assert made.messages[0].content == (Media("image", "http://h/1.png"), Text("a"), Media("audio", "/data/b.wav"))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"query": "u"}, "has no column 'response'"),
        ({"query": 3, "response": "a"}, "query: expected text, found int 3"),
        ({"query": "u", "response": 3.5}, "response: expected text, found float 3.5"),
        ({"query": "u", "response": "a", "history": ["x"]}, "history: expected pairs"),
        ({"query": "u", "response": "a", "label": 1}, "label: expected true or false, found int 1"),
        ({"query": "u", "response": "a", "objects": {"bbox": []}}, "objects: boxes and references are not supported"),
        ({"query": "<image>", "response": "a", "images": []}, "more <image> placeholders than images"),
        ({"messages": turns(("user", "u")), "rejected_response": "b"}, "does not end with an answer"),
        ({"messages": turns(("bot", "u"))}, "messages, turn 1: role: expected one of"),
        ({"conversation": [{"human": 3, "assistant": "a"}]}, "conversation, round 1: human: expected text"),
    ],
)
def test_malformed_rows_say_what_is_wrong(row, reason):
    with pytest.raises(DataError) as caught:
        convert(row, entry())
    assert reason in str(caught.value)


GOOD = [
    {"system": "S", "query": "<image>u", "response": "a", "history": [["x", "y"]], "images": ["1.png"], "label": True},
    {"query": "<img>1.png</img>u", "response": "a", "rejected_response": "b"},
    {"messages": turns(("user", "u"), ("tool_call", '{"name": "f"}'), ("tool", "r"), ("assistant", "a")), "tools": []},
    {"conversation": [{"human": "u", "assistant": "a"}], "rejected_messages": turns(("user", "u"), ("assistant", "b"))},
    {"response": "Once"},
]


def test_mangled_rows_become_an_example_or_a_reason(survives):
    kinds = {TextExample, ChatExample, PairExample, FeedbackExample, DataError}
    assert kinds <= survives(convert, GOOD, [entry()])
