"""Reference: the published template's renders of Hy3 (golden/renders.jsonl), LLaMA-Factory's strings of the small and
dense models (golden/llamafactory_templates.jsonl), and for the first Hunyuan the slots that LLaMA-Factory documents."""

import json

import ftk_template_hunyuan
import pytest
from ftk import DataError, Message, ToolCall
from ftk_data.tools import read_answer, write_answer
from ftk_template_hunyuan.tools import HY3
from hypothesis import given
from hypothesis import strategies as st

SPECS = {spec.name: spec for spec in ftk_template_hunyuan.ftk_chat_templates()}
EOS = "<｜hy_eos:opensource｜>"
TOOLS = ({"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}},)
TURNS = [Message("user", "Hi"), Message("assistant", "Ho"), Message("user", "Ha"), Message("assistant", "He")]
HISTORY = [
    Message("user", "1+1?"),
    Message("assistant", "2", reasoning="Add."),
    Message("user", "2+2?"),
    Message("assistant", "4", reasoning="Double."),
]
LOOKED = [
    Message("user", "?"),
    Message("assistant", tool_calls=(ToolCall("look", {"at": "1", "n": 2}), ToolCall("look", {}))),
    Message("tool", "a"),
    Message("tool", "b"),
    Message("assistant", "Done"),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
STRINGS = st.sampled_from(["10", "null", '"x"', "<arg_key:opensource>", "</tool_call:opensource>", " a\n", "[1]"])
ARGUMENTS = st.dictionaries(st.text(), JSON | STRINGS, max_size=3)
CALLS = st.lists(st.builds(ToolCall, st.text(), ARGUMENTS), min_size=1, max_size=3, unique_by=lambda call: call.name)
TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}


def described(calls):
    """Tools with the types that the arguments have."""
    return tuple(
        {
            "type": "function",
            "function": {
                "name": call.name,
                "parameters": {
                    "type": "object",
                    "properties": {
                        key: {"type": TYPES.get(type(value), "null")} for key, value in call.arguments.items()
                    },
                },
            },
        }
        for call in calls
    )


def answers_of(rows):
    """(all that comes before it, text) of each trained answer."""
    return [
        ("".join(before.text for before in row[:i]), one.text)
        for row in rows
        for i, one in enumerate(row)
        if one.trained
    ]


def test_it_renders_what_the_published_template_renders(check_published):
    assert check_published(SPECS["hy3"], "hy3") == 40


@pytest.mark.parametrize("thinking", [True, False])
def test_hy3_trains_an_answer_after_its_prompt_and_drops_earlier_thoughts(make_renderer, thinking):
    made = make_renderer(SPECS["hy3"], None, EOS, enable_thinking=thinking)
    first, second = answers_of(made.render(HISTORY))
    assert [first[0], second[0]] == [made.prompt_text(HISTORY[:1]), made.prompt_text(HISTORY[:3])]
    assert "Add." not in second[0]
    assert first[1] == ("Add.</think:opensource>2" if thinking else "2") + EOS
    assert second[1] == ("Double.</think:opensource>4" if thinking else "4") + EOS
    assert ("effort:high" if thinking else "effort:no_think") in first[0]


def test_hy3_keeps_thoughts_when_told_to(make_renderer):
    made = make_renderer(SPECS["hy3"], None, EOS, enable_thinking=True, preserve_thinking=True)
    rows = made.render(HISTORY)
    assert len(rows) == 1
    assert answers_of(rows)[1][0] == made.prompt_text(HISTORY[:3])


def test_hy3_trains_calls_in_the_row_of_their_answer(make_renderer):
    made = make_renderer(SPECS["hy3"], None, EOS)
    rows = made.render(LOOKED, TOOLS)
    assert len(rows) == 1
    call, answer = answers_of(rows)
    assert call[0] == made.prompt_text(LOOKED[:1], TOOLS)
    assert call[1].startswith("<tool_calls:opensource>\n<tool_call:opensource>look<tool_sep:opensource>\n")
    assert call[1].endswith("</tool_calls:opensource>" + EOS)
    assert answer == (made.prompt_text(LOOKED[:4], TOOLS), "Done" + EOS)
    assert made.stop == (EOS,)


@pytest.mark.parametrize("name", ["hunyuan_small", "hy_dense_1_8b", "hy_dense_7b"])
def test_the_older_ones_write_what_the_peer_writes_with_the_stop_token_after_each_answer(
    make_renderer, peer_cases, name
):
    compared = 0
    (stop,) = SPECS[name].stop
    for case in peer_cases(name):
        if "tool" in case["case"] or case["method"] != "encode_multiturn":  # the dialect "default" is not the family's
            continue
        made = make_renderer(SPECS[name], case["bos_token"], case["eos_token"])
        system = [Message("system", case["system"])] if case["system"] else []
        rows = made.render([*system, *(Message(one["role"], one["content"]) for one in case["messages"])])
        assert len(rows) == 1
        whole = "".join(segment.text for segment in rows[0])
        # the peer leaves the stop token out of dense conversations and trains it as a label of what comes next
        assert whole.replace(stop, "") == "".join(map("".join, case["expected"])).replace(stop, "")
        start = SPECS[name].generation  # the peer trains it, too
        wanted = [answer.removesuffix(stop).removeprefix(start) + stop for _, answer in case["expected"]]
        assert [text for _, text in answers_of(rows)] == wanted
        compared += 1
    assert compared == 7


def test_the_first_hunyuan(make_renderer):
    made = make_renderer(SPECS["hunyuan"], "<|startoftext|>", "<|eos|>")
    (row,) = made.render([Message("system", "Be"), *TURNS])
    assert [one[:2] for one in row] == [
        ("<|startoftext|>Be<|extra_4|>Hi<|extra_0|>", False),
        ("Ho<|eos|>", True),
        ("Ha<|extra_0|>", False),
        ("He<|eos|>", True),
    ]
    assert answers_of(made.render(TURNS))[1][0] == made.prompt_text(TURNS[:3])
    assert "You have access to the following tools:\n> Tool Name: " in made.prompt_text(TURNS[:1], TOOLS)


@given(st.text(), CALLS)
def test_calls_are_read_back_with_the_schema_or_refused(content, calls):
    tags = ("<tool_calls:opensource>", "<tool_sep:opensource>", "</arg_key:opensource>", "</arg_value:opensource>")
    try:
        text = write_answer(HY3, content, calls)
    except DataError:
        said = content + json.dumps([[call.name, call.arguments] for call in calls])
        assert any(tag in said for tag in tags)
        return
    assert read_answer(HY3, text, described(calls)) == (content, tuple(calls))


def test_without_a_schema_what_reads_as_json_is_json():
    text = write_answer(HY3, "", (ToolCall("look", {"a": "10", "b": "x", "c": '"x"', "d": "NaN", "e": [1]}),))
    assert read_answer(HY3, text)[1][0].arguments == {"a": 10, "b": "x", "c": '"x"', "d": "NaN", "e": [1]}


@pytest.mark.parametrize("value", ["</arg_value:opensource>", ["</arg_value:opensource>"]])
def test_a_value_that_holds_the_closing_tag_is_refused(make_renderer, value):
    call = ToolCall("look", {"at": value})
    with pytest.raises(DataError, match="argument at holds a closing tag"):
        write_answer(HY3, "", (call,))
    with pytest.raises(DataError, match="argument at holds a closing tag"):
        make_renderer(SPECS["hy3"], None, EOS).render([LOOKED[0], Message("assistant", tool_calls=(call,))], TOOLS)


def test_half_a_call_is_text():
    text = write_answer(HY3, "", (ToolCall("look", {"at": 1}),))[:-50]
    assert read_answer(HY3, text) == (text, ())
