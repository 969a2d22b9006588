"""Reference: the published template's renders of EXAONE 4.0 (golden/renders.jsonl), and the slots that LLaMA-Factory
documents for EXAONE 3."""

import ftk_template_exaone
import pytest
from ftk import DataError, Message, ToolCall
from ftk_data.tools import read_answer, write_answer
from ftk_template_exaone.tools import EXAONE4
from hypothesis import given
from hypothesis import strategies as st

SPECS = {spec.name: spec for spec in ftk_template_exaone.ftk_chat_templates()}
TOOLS = ({"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}},)
EMPTY = "<think>\n\n</think>\n\n"
HISTORY = [
    Message("user", "1+1?"),
    Message("assistant", "2", reasoning="Add."),
    Message("user", "2+2?"),
    Message("assistant", "4", reasoning="Double."),
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
    assert check_published(SPECS["exaone4"], "exaone4", lambda case: False) == 46


def test_without_thinking_a_conversation_is_one_row(make_renderer):
    made = make_renderer(SPECS["exaone4"], "[BOS]", "[|endofturn|]", enable_thinking=False)
    rows = made.render(HISTORY)
    assert len(rows) == 1
    assert answers_of(rows) == [
        (made.prompt_text(HISTORY[:1]), "2[|endofturn|]"),
        (made.prompt_text(HISTORY[:3]), "4[|endofturn|]"),
    ]


@pytest.mark.parametrize("thinking", [True, None])
def test_with_thinking_the_trained_answer_ends_its_thought_and_history_has_an_empty_one(make_renderer, thinking):
    made = make_renderer(SPECS["exaone4"], "[BOS]", "[|endofturn|]", enable_thinking=thinking)
    first, second = answers_of(made.render(HISTORY))
    assert first == ("[|user|]\n1+1?[|endofturn|]\n[|assistant|]\n<think>\n", "Add.\n</think>\n\n2[|endofturn|]")
    assert second[1] == "Double.\n</think>\n\n4[|endofturn|]"
    assert f"[|assistant|]\n{EMPTY}2[|endofturn|]\n" in second[0]
    if thinking:
        assert [first[0], second[0]] == [made.prompt_text(HISTORY[:1]), made.prompt_text(HISTORY[:3])]


def test_calls_and_results_stand_in_one_row(make_renderer):
    made = make_renderer(SPECS["exaone4"], "[BOS]", "[|endofturn|]")
    turns = [
        Message("system", "Be"),
        Message("user", "?"),
        Message("assistant", "Wait", tool_calls=(ToolCall("look", {"at": 1}), ToolCall("look", {}))),
        Message("tool", "a"),
        Message("tool", "b"),
        Message("assistant", "Done"),
    ]
    (row,) = made.render(turns, TOOLS)
    (_, call), (before, answer) = answers_of([row])
    assert call == (
        'Wait\n<tool_call>{"name": "look", "arguments": {"at": 1}}</tool_call>\n'
        '<tool_call>{"name": "look", "arguments": {}}</tool_call>[|endofturn|]'
    )
    assert (before, answer) == (made.prompt_text(turns[:5], TOOLS), "Done[|endofturn|]")


def test_exaone_3_trains_each_answer_with_its_stop_token(make_renderer):
    made = make_renderer(SPECS["exaone"], "[BOS]", "[|endofturn|]")
    (row,) = made.render([Message("system", "Be"), Message("user", "Hi"), Message("assistant", "Ho"), *HISTORY[2:3]])
    assert [one[:2] for one in row] == [
        ("[|system|]Be[|endofturn|]\n[|user|]Hi\n[|assistant|]", False),
        ("Ho[|endofturn|]", True),
        ("\n[|user|]2+2?\n", False),
    ]
    assert made.stop[0] == "[|endofturn|]"
    with pytest.raises(DataError, match="holds tools or calls"):
        made.prompt_text(HISTORY[:1], TOOLS)


@given(st.text().filter(lambda text: "<tool_call>" not in text), CALLS)
def test_calls_are_read_back_as_they_were_written(content, calls):
    assert read_answer(EXAONE4, write_answer(EXAONE4, content, calls)) == (content, tuple(calls))


def test_arguments_may_spell_the_dialect_itself():
    calls = (ToolCall("look", {"at": '"}</tool_call>\n<tool_call>{"name": "x"}', "n": "10"}),)
    assert read_answer(EXAONE4, write_answer(EXAONE4, "", calls)) == ("", calls)


def test_a_content_that_starts_a_call_is_refused():
    with pytest.raises(DataError, match="starts a call"):
        write_answer(EXAONE4, 'See <tool_call>{"name": "x"}</tool_call>', (ToolCall("look", {}),))
