"""Reference: Nemotron 3 Nano's published template (golden/renders.jsonl)."""

import json

import ftk_template_nemotron
import pytest
from ftk import DataError, Message, ToolCall
from ftk_data.environment import compiled
from ftk_data.tools import read_answer, write_answer
from hypothesis import given
from hypothesis import strategies as st

(SPEC,) = ftk_template_nemotron.ftk_chat_templates()
(DIALECT,) = ftk_template_nemotron.ftk_tool_formats()
TURNS = [
    Message("user", "1+1?"),
    Message("assistant", "2", reasoning="Add."),
    Message("user", "2+2?"),
    Message("assistant", "4", reasoning="Double."),
]
TEXTS = st.text() | st.sampled_from(
    ["", "\n", "12", "None", "</parameter>", "</function>", "<tool_call>", "a\n</parameter"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
NAMES = st.from_regex(r"[a-z_][\w.-]{0,8}", fullmatch=True) | TEXTS
CALLS = st.lists(
    st.builds(ToolCall, NAMES, st.dictionaries(NAMES, VALUES, max_size=3)),
    min_size=1,
    max_size=3,
    unique_by=lambda call: call.name,
)


def schema_of(value):
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return {"type": kinds.get(type(value), "null")}


def tools_for(calls):
    for call in calls:
        properties = {name: schema_of(value) for name, value in call.arguments.items()}
        yield {"type": "function", "function": {"name": call.name, "parameters": {"properties": properties}}}


def renderer(make_renderer, **options):
    return make_renderer(SPEC, None, "<|im_end|>", **options)


def test_it_renders_what_the_published_template_renders(check_published):
    assert check_published(SPEC, "nemotron3-nano") == 40


def test_history_without_its_reasoning_gives_each_answer_a_row(make_renderer):
    made = renderer(make_renderer)
    rows = made.render(TURNS)
    assert [one.text for row in rows for one in row if one.trained] == [
        "Add.\n</think>\n2<|im_end|>",
        "Double.\n</think>\n4<|im_end|>",
    ]
    assert [row[0].text for row in rows] == [made.prompt_text(TURNS[:1]), made.prompt_text(TURNS[:3])]
    assert made.stop == ("<|im_end|>",)


def test_preserve_thinking_keeps_one_row(make_renderer):
    (row,) = renderer(make_renderer, preserve_thinking=True).render(TURNS)
    assert [one.trained for one in row] == [False, True, False, True, False]


def test_without_thinking_the_prompt_holds_the_empty_thought(make_renderer):
    made = renderer(make_renderer, enable_thinking=False)
    (row,) = made.render(TURNS)
    assert [one.text for one in row if one.trained] == ["2<|im_end|>", "4<|im_end|>"]
    assert row[0].text == made.prompt_text(TURNS[:1])


def test_the_template_and_the_dialect_write_the_same(make_renderer):
    extra = {
        "type": "object",
        "properties": {"at": {"type": "string", "default": None, "items": {"a": 1}}},
        "strict": True,
    }
    tools = (
        {"type": "function", "function": {"name": "look", "description": " Look ", "parameters": extra, "x": [1]}},
    )
    calls = (ToolCall("look", {"at": "a\nb", "n": [True, None]}), ToolCall("look", {"n": True}))
    turns = [Message("system", "Be"), Message("user", "?"), Message("assistant", "So:", tool_calls=calls)]
    text = "".join(one.text for one in renderer(make_renderer).render(turns, tools)[0])
    assert f"system\n{compiled(DIALECT.system).render(system='Be', tools=tools)}<|im_end|>\n" in text
    assert text.endswith(f"<think></think>{write_answer(DIALECT, 'So:', calls)}<|im_end|>\n")


@given(st.text() | st.sampled_from(["a\n", "\n", "<tool_call>"]), CALLS)
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
    calls = (ToolCall("look", {"at": "a <b>\n\nc", "deep": {"x": [1, None]}, "on": True}), ToolCall("stop", {}))
    text = write_answer(DIALECT, "So:", calls)
    assert read_answer(DIALECT, text, (*tools_for(calls),)) == ("So:", calls)


def test_without_a_schema_a_value_is_what_it_looks_like():
    text = write_answer(DIALECT, "", [ToolCall("f", {"a": 1, "b": "x y", "c": False, "d": None})])
    assert read_answer(DIALECT, text)[1][0].arguments == {"a": 1, "b": "x y", "c": False, "d": None}
    assert read_answer(DIALECT, "<tool_call>\n<function=f>\n") == ("<tool_call>\n<function=f>\n", ())


def test_a_value_that_holds_its_own_end_is_refused(make_renderer):
    call = ToolCall("look", {"at": "x\n</parameter>\n"})
    with pytest.raises(DataError, match="at holds </parameter>"):
        write_answer(DIALECT, "", [call])
    with pytest.raises(DataError, match="at holds </parameter>"):
        renderer(make_renderer).render([Message("user", "?"), Message("assistant", tool_calls=(call,))])
