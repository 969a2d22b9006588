"""Reference: the published template's renders of Granite 3.0 (golden/renders.jsonl), LLaMA-Factory's strings of Granite
3 Vision (golden/llamafactory_templates.jsonl), and for Granite 4.0 the slots that LLaMA-Factory documents."""

import ftk_template_granite
import pytest
from ftk import DataError, Media, Message, Text, ToolCall
from ftk_data.tools import read_answer, write_answer
from ftk_template_granite.tools import GRANITE3, GRANITE4
from hypothesis import given
from hypothesis import strategies as st

SPECS = {spec.name: spec for spec in ftk_template_granite.ftk_chat_templates()}
TOOLS = ({"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}},)
END = "<|end_of_text|>"
TURNS = [Message("user", "Hi"), Message("assistant", "Ho"), Message("user", "Ha"), Message("assistant", "He")]
LOOKED = [
    Message("user", "?"),
    Message("assistant", tool_calls=(ToolCall("look", {"at": 1}), ToolCall("look", {}))),
    Message("tool", "a"),
    Message("tool", "b"),
    Message("assistant", "Done"),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
CALLS = st.lists(st.builds(ToolCall, st.text(), st.dictionaries(st.text(), JSON, max_size=3)), min_size=1, max_size=3)


def answers_of(rows):
    """(all that comes before it, text) of each trained answer."""
    return [
        ("".join(before.text for before in row[:i]), one.text)
        for row in rows
        for i, one in enumerate(row)
        if one.trained
    ]


def test_it_renders_what_the_published_template_renders(check_published):
    # the published one leaves calls and results out without a word
    assert check_published(SPECS["granite3"], "granite3.0", lambda case: "tool_call" in case["case"]) == 30


@pytest.mark.parametrize("name", SPECS)
def test_both_answers_are_trained_with_the_stop_token(make_renderer, name):
    made = make_renderer(SPECS[name], END, END)
    rows = made.render(TURNS)
    assert len(rows) == 1
    assert answers_of(rows) == [(made.prompt_text(TURNS[:1]), "Ho" + END), (made.prompt_text(TURNS[:3]), "He" + END)]
    assert made.stop == (END,)


@pytest.mark.parametrize(
    ("name", "call", "results"),
    [
        (
            "granite3",
            '<|tool_call|>[{"name": "look", "arguments": {"at": 1}}, {"name": "look", "arguments": {}}]',
            "<|start_of_role|>tool_response<|end_of_role|>a<|end_of_text|>\n"
            "<|start_of_role|>tool_response<|end_of_role|>b<|end_of_text|>\n",
        ),
        (
            "granite4",
            '<tool_call>\n{"name": "look", "arguments": {"at": 1}}\n</tool_call>\n'
            '<tool_call>\n{"name": "look", "arguments": {}}\n</tool_call>',
            "<|start_of_role|>user<|end_of_role|>\n<tool_response>\na\n</tool_response>"
            "\n<tool_response>\nb\n</tool_response><|end_of_text|>\n",
        ),
    ],
)
def test_calls_are_trained_and_results_are_not(make_renderer, name, call, results):
    made = make_renderer(SPECS[name], END, END)
    first, second = answers_of(made.render(LOOKED, TOOLS))
    assert first == (made.prompt_text(LOOKED[:1], TOOLS), call + END)
    assert second == (made.prompt_text(LOOKED[:4], TOOLS), "Done" + END)
    assert second[0] == f"{first[0]}{call}{END}\n{results}<|start_of_role|>assistant<|end_of_role|>"


def test_the_default_system_text_of_granite_4_and_its_words_about_tools(make_renderer):
    made = make_renderer(SPECS["granite4"], END, END)
    start = "<|start_of_role|>system<|end_of_role|>You are Granite, developed by IBM. You are a helpful AI assistant."
    assert made.prompt_text(TURNS[:1]).startswith(start + END)
    told = made.prompt_text(LOOKED[:1], TOOLS)
    assert told.startswith(start + "\n\nYou are a helpful assistant with access to the following tools.")
    assert "\n<tools>\n" + '{"type": "function", "function": {"name": "look"' in told


def test_granite_vision_writes_what_the_peer_writes(make_renderer, peer_cases):
    compared = 0
    made = make_renderer(SPECS["granite3_vision"], "<s>", "</s>")
    for case in peer_cases("granite3_vision"):
        if "tool" in case["case"] or case["method"] != "encode_multiturn":  # the dialect "default" is not the family's
            continue
        system = [Message("system", case["system"])] if case["system"] else []
        rows = made.render([*system, *(Message(one["role"], one["content"]) for one in case["messages"])])
        assert len(rows) == 1
        answers = answers_of(rows)
        assert [text for _, text in answers] == [answer for _, answer in case["expected"]]
        assert answers[-1][0] + answers[-1][1] == "".join(map("".join, case["expected"]))
        compared += 1
    assert compared == 7


def test_an_image_is_a_placeholder(make_renderer):
    made = make_renderer(SPECS["granite3_vision"], "<s>", "</s>")
    asked = Message("user", (Media("image", "cat.png"), Text("What?")))
    assert made.prompt_text([Message("system", "Be"), asked]) == (
        "<|system|>\nBe\n<|user|>\n<image>What?\n<|assistant|>\n"
    )


def test_vision_tells_of_tools_in_plain_words(make_renderer):
    text = make_renderer(SPECS["granite3_vision"], END, END).prompt_text(TURNS[:1], TOOLS)
    assert "You have access to the following tools:\n> Tool Name: " in text


@pytest.mark.parametrize(("form", "mark"), [(GRANITE3, "<|tool_call|>"), (GRANITE4, "<tool_call>")])
def test_calls_are_read_back_as_they_were_written(form, mark):
    @given(st.text().filter(lambda text: mark not in text), CALLS)
    def check(content, calls):
        assert read_answer(form, write_answer(form, content, calls)) == (content, tuple(calls))

    check()
    calls = (ToolCall("look", {"at": f"]{mark}\n</tool_call>" + '"}', "n": "10"}),)
    assert read_answer(form, write_answer(form, "", calls)) == ("", calls)
    with pytest.raises(DataError, match="the content holds"):
        write_answer(form, mark, calls)


def test_half_a_list_of_calls_is_text():
    text = write_answer(GRANITE3, "", (ToolCall("look", {}),))[:-2]
    assert read_answer(GRANITE3, text) == (text, ())
    assert read_answer(GRANITE3, "Hello") == ("Hello", ())
