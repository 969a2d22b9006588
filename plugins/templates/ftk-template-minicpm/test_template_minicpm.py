"""Reference: MiniCPM5's published template (golden/renders.jsonl); LLaMA-Factory's strings for MiniCPM-V and -o."""

import json
import re

import ftk_template_minicpm
import pytest
from ftk import DataError, Message, ToolCall
from ftk_data.tools import read_answer, write_answer
from hypothesis import given
from hypothesis import strategies as st

SPECS = {spec.name: spec for spec in ftk_template_minicpm.ftk_chat_templates()}
(DIALECT,) = ftk_template_minicpm.ftk_tool_formats()
TURNS = [
    Message("user", "1+1?"),
    Message("assistant", "2", reasoning="Add."),
    Message("user", "2+2?"),
    Message("assistant", "4", reasoning="Double."),
]
HOSTILE = st.sampled_from(["", "12", "True", "null", "]]>", "</param>", "<![CDATA[x", "a & b", "a\nb", "</function>"])
TEXTS = st.text() | HOSTILE
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
NAMES = st.from_regex(r"[a-z_][\w.-]{0,8}", fullmatch=True) | st.text(min_size=1)
CALLS = st.lists(
    st.builds(ToolCall, NAMES, st.dictionaries(NAMES, VALUES, max_size=3)),
    min_size=1,
    max_size=3,
    unique_by=lambda call: call.name,
)


def messages_of(case):
    """The peer's messages as ftk has them: calls and the thoughts before them taken out of the text."""
    yield from [Message("system", case["system"])] if case["system"] else []
    for one in case["messages"]:
        role, content = one["role"], one["content"]
        if role == "function":
            thought = content[: re.search(r"\[?\{", content).start()]
            calls = json.loads(content[len(thought) :])
            calls = calls if isinstance(calls, list) else [calls]
            made = tuple(ToolCall(call["name"], call["arguments"]) for call in calls)
            yield Message("assistant", thought, tool_calls=made)
        else:
            yield Message("tool" if role == "observation" else role, content)


def tools_of(case):
    return tuple({"type": "function", "function": tool} for tool in json.loads(case["tools"] or "[]"))


def schema_of(value):
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return {"type": kinds.get(type(value), "null")}


def tools_for(calls):
    for call in calls:
        properties = {name: schema_of(value) for name, value in call.arguments.items()}
        yield {"type": "function", "function": {"name": call.name, "parameters": {"properties": properties}}}


def test_minicpm5_renders_what_the_published_template_renders(check_published):
    assert check_published(SPECS["minicpm5"], "minicpm5") == 40


@pytest.mark.parametrize("name", ["minicpm_v", "minicpm_v_4_6", "minicpm_o"])
def test_the_strings_are_those_of_the_peer(make_renderer, peer_cases, name):
    cases = peer_cases(name)
    assert len(cases) == 26
    for case in cases:
        pairs = [case["expected"]] if case["method"] == "encode_oneturn" else case["expected"]
        (row,) = make_renderer(SPECS[name], "<s>", "</s>").render([*messages_of(case)], tools_of(case))
        assert "".join(one.text for one in row) == "".join(map("".join, pairs)), case["case"]
        if case["method"] == "encode_multiturn":
            trained = [one.text for one in row if one.trained]
            assert trained == [answer.removesuffix("\n") for _, answer in pairs], case["case"]


def test_cpm4_is_chatml_after_the_first_token(make_renderer):
    made = make_renderer(SPECS["cpm4"], "<s>", "</s>")
    text = made.prompt_text([Message("system", "Be"), Message("user", "Hi")])
    assert text == ("<s><|im_start|>system\nBe<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    assert made.stop[0] == "<|im_end|>"


def test_history_without_its_reasoning_gives_each_answer_a_row(make_renderer):
    made = make_renderer(SPECS["minicpm5"], "<s>", "<|im_end|>")
    rows = made.render(TURNS)
    assert [one.text for row in rows for one in row if one.trained] == [
        "<think>\nAdd.\n</think>\n\n2<|im_end|>",
        "<think>\nDouble.\n</think>\n\n4<|im_end|>",
    ]
    assert [row[0].text for row in rows] == [made.prompt_text(TURNS[:1]), made.prompt_text(TURNS[:3])]
    assert made.stop == ("<|im_end|>",)


def test_preserve_thinking_keeps_one_row(make_renderer):
    (row,) = make_renderer(SPECS["minicpm5"], "<s>", "<|im_end|>", preserve_thinking=True).render(TURNS)
    assert [one.trained for one in row] == [False, True, False, True, False]


@pytest.mark.parametrize(("thinking", "trained"), [(False, "4<|im_end|>"), (True, "\n</think>\n\n4<|im_end|>")])
def test_an_answer_without_reasoning_fits_the_prompt_that_asked_for_it(make_renderer, thinking, trained):
    made = make_renderer(SPECS["minicpm5"], "<s>", "<|im_end|>", enable_thinking=thinking)
    turns = [Message("user", "2+2?"), Message("assistant", "4")]
    ((prompt, answer, _),) = made.render(turns)
    assert answer.text == trained
    assert prompt.text == made.prompt_text(turns[:1])


def test_the_tools_stand_where_the_system_text_has_room_for_them(make_renderer):
    tools = ({"type": "function", "function": {"name": "look"}},)
    made = make_renderer(SPECS["minicpm5"], "<s>", "<|im_end|>")
    text = made.prompt_text([Message("system", "A <tool_def_sep> Z"), Message("user", "?")], tools)
    assert text.startswith("<s><|im_start|>system\nA # Tools\n\nYou are provided")
    assert "]]></param> Z<|im_end|>" in text


@given(st.text() | st.sampled_from(["a\n", "\n", '<function name="f">']), CALLS)
def test_what_the_dialect_writes_it_reads_or_it_refuses_to_write(content, calls):
    try:
        text = write_answer(DIALECT, content, calls)
    except DataError:
        return
    read, found = read_answer(DIALECT, text, (*tools_for(calls),))
    assert read == content
    assert [(one.name, json.dumps(one.arguments)) for one in found] == [
        (one.name, json.dumps(one.arguments)) for one in calls
    ]


def test_ordinary_calls_are_never_refused():
    calls = (ToolCall("look", {"at": "a <b> & c\nd", "deep": {"x": [1, None, "it's"]}, "n": 1.5}), ToolCall("stop", {}))
    text = write_answer(DIALECT, "So:", calls)
    assert text == (
        'So:\n<function name="look"><param name="at"><![CDATA[a <b> & c\nd]]></param>'
        """<param name="deep">{'x': [1, None, "it's"]}</param><param name="n">1.5</param></function>"""
        '\n<function name="stop"></function>'
    )
    assert read_answer(DIALECT, text, (*tools_for(calls),)) == ("So:", calls)


def test_without_a_schema_a_value_is_what_it_looks_like():
    text = (
        '<function name="f"><param name="a">1</param><param name="b">x y</param><param name="c">1, 2</param></function>'
    )
    assert read_answer(DIALECT, text)[1][0].arguments == {"a": 1, "b": "x y", "c": "1, 2"}


@pytest.mark.parametrize("value", ["<b>]]>", ["</param>"]])
def test_a_value_that_holds_its_own_end_is_refused(make_renderer, value):
    call = ToolCall("look", {"at": value})
    with pytest.raises(DataError, match="at holds what ends a parameter"):
        write_answer(DIALECT, "", [call])
    with pytest.raises(DataError, match="at holds what ends a parameter"):
        make_renderer(SPECS["minicpm5"], "<s>", "<|im_end|>").render(
            [Message("user", "?"), Message("assistant", tool_calls=(call,))]
        )
