"""Reference: the published templates' renders of five DeepSeek models (golden/renders.jsonl)."""

import json
from pathlib import Path

import ftk_template_deepseek
import pytest
from ftk import DataError, Message, ToolCall
from ftk_data.environment import render_marked
from ftk_data.tools import read_answer, write_answer
from ftk_template_deepseek.tools import DEEPSEEK
from hypothesis import given
from hypothesis import strategies as st

GOLDEN = Path(__file__).parents[4] / "shared" / "golden" / "renders.jsonl"
SPECS = {spec.name: spec for spec in ftk_template_deepseek.ftk_chat_templates()}
BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
TOOLS = ({"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}},)
HISTORY = [
    Message("user", "1+1?"),
    Message("assistant", "2", reasoning="Add."),
    Message("user", "2+2?"),
    Message("assistant", "4", reasoning="Double."),
]
LOOKED = [
    Message("user", "?"),
    Message("assistant", tool_calls=(ToolCall("look", {"at": "it"}), ToolCall("look", {}))),
    Message("tool", "seen"),
    Message("tool", "nothing"),
    Message("assistant", "Done"),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
CALLS = st.lists(
    st.builds(ToolCall, st.from_regex(r"[\w.-]+", fullmatch=True), st.dictionaries(st.text(), JSON, max_size=3)),
    min_size=1,
    max_size=3,
)


def text_of(row):
    return "".join(segment.text for segment in row)


def answers_of(rows):
    """(all that comes before it, text) of each trained answer."""
    return [(text_of(row[:i]), one.text) for row in rows for i, one in enumerate(row) if one.trained]


@pytest.mark.parametrize(
    ("family", "name", "num"),
    [
        ("deepseek-llm", "deepseek", 30),
        ("deepseek-coder", "deepseekcoder", 30),
        ("deepseek-v3", "deepseek3", 26),
        ("deepseek-r1", "deepseekr1", 26),
        ("deepseek-r1-distill-qwen", "deepseekr1_distill", 30),
    ],
)
def test_it_renders_what_the_published_template_renders(check_published, family, name, num):
    # all five leave the tools out without a word, and the first two the calls and results, too
    knows_tools = bool(SPECS[name].source)
    assert check_published(SPECS[name], family, lambda case: is_left_out(case, knows_tools)) == num


def is_left_out(case, knows_tools):
    return bool(case["tools"]) if knows_tools else "tool_call" in case["case"]


@pytest.mark.parametrize(("family", "name"), [("deepseek-v3", "deepseek3"), ("deepseek-r1", "deepseekr1")])
def test_calls_and_results_are_written_as_the_published_template_writes_them(make_renderer, family, name):
    if not GOLDEN.exists():
        pytest.skip(f"{GOLDEN} is not there")
    made = make_renderer(SPECS[name], BOS, EOS)
    cases = [case for case in map(json.loads, GOLDEN.open()) if case["family"] == family and "[str]" in case["case"]]
    assert len(cases) == 6
    for case in cases:
        variables = {"add_generation_prompt": case["add_generation_prompt"], "tools": None, **made.tokens}
        assert render_marked(made.source, case["messages"], **variables)[0] == case["rendered"], case["case"]


@pytest.mark.parametrize("name", ["deepseek3", "deepseekr1", "deepseekr1_distill"])
@pytest.mark.parametrize("thinking", [True, False])
def test_each_row_begins_with_the_prompt_of_its_answer(make_renderer, name, thinking):
    made = declared(make_renderer, name, thinking)
    answers = answers_of(made.render(HISTORY))
    assert [before for before, _ in answers] == [made.prompt_text(HISTORY[:1]), made.prompt_text(HISTORY[:3])]
    assert all(answer.endswith(EOS) for _, answer in answers)
    assert ["Add." in answers[0][1], "Double." in answers[1][1]] == [thinking, thinking]
    assert "Add." not in answers[1][0]


def declared(make_renderer, name, thinking):
    return make_renderer(SPECS[name], BOS, EOS, enable_thinking=thinking)


def test_a_thought_is_trained_as_the_published_prompt_of_v3_opens_it(make_renderer):
    made = make_renderer(SPECS["deepseek3"], BOS, EOS)
    prompt, answer = made.render(HISTORY)[0]
    assert (prompt.text, answer.text) == (f"{BOS}<｜User｜>1+1?<｜Assistant｜><think>\n", f"Add.\n</think>\n\n2{EOS}")


@pytest.mark.parametrize("name", ["deepseek3", "deepseekr1", "deepseekr1_distill"])
def test_calls_and_the_answer_to_their_results_are_trained(make_renderer, name):
    made = declared(make_renderer, name, False)
    rows = made.render(LOOKED, TOOLS)
    trained = [segment.text for row in rows for segment in row if segment.trained]
    assert [text.endswith(EOS) for text in trained] == [True, True]
    assert trained[0].count("<｜tool▁call▁begin｜>function<｜tool▁sep｜>look\n```json\n") == 2
    assert trained[1] == "Done" + EOS
    assert text_of(rows[-1]).startswith(made.prompt_text(LOOKED[:4], TOOLS))


@pytest.mark.parametrize(("name", "stop"), [("deepseek", EOS), ("deepseekcoder", "<|EOT|>")])
def test_both_answers_of_a_row_are_trained_with_their_stop_token(make_renderer, name, stop):
    made = make_renderer(SPECS[name], BOS, EOS)
    turns = [Message("user", "Hi"), Message("assistant", "Ho"), Message("user", "Ha"), Message("assistant", "He")]
    (row,) = made.render(turns)
    trained = [segment.text for segment in row if segment.trained]
    assert [text.strip().removesuffix(stop).strip() for text in trained] == ["Ho", "He"]
    assert made.stop[0] == stop
    assert text_of(row).startswith(made.prompt_text(turns[:3]))


def test_the_older_models_refuse_tools(make_renderer):
    with pytest.raises(DataError, match="holds tools or calls"):
        make_renderer(SPECS["deepseek"], BOS, EOS).prompt_text([Message("user", "?")], TOOLS)


@given(st.text().filter(lambda text: "<｜tool" not in text), CALLS)
def test_calls_are_read_back_as_they_were_written(content, calls):
    assert read_answer(DEEPSEEK, write_answer(DEEPSEEK, content, calls)) == (content, tuple(calls))


def test_arguments_may_spell_the_dialect_itself():
    calls = (ToolCall("look", {"at": "\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>", "x": "<｜tool▁calls▁begin｜>"}),)
    assert read_answer(DEEPSEEK, write_answer(DEEPSEEK, "Let me", calls)) == ("Let me", calls)


def test_what_cannot_be_read_back_is_refused():
    with pytest.raises(DataError, match="starts calls"):
        write_answer(DEEPSEEK, "<｜tool▁calls▁begin｜>", (ToolCall("look", {}),))
    with pytest.raises(DataError, match="line break"):
        write_answer(DEEPSEEK, "", (ToolCall("lo\nok", {}),))


def test_an_answer_without_calls_or_with_half_a_call_is_left_as_it_is():
    cut = write_answer(DEEPSEEK, "", (ToolCall("look", {"at": 1}),))[:-40]
    for text in ("Hello", cut):
        assert read_answer(DEEPSEEK, text) == (text, ())
