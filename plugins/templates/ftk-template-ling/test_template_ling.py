"""Reference: Ling-lite's published template (golden/renders.jsonl) and LLaMA-Factory's tool strings."""

import json
from pathlib import Path

import ftk_template_ling
import pytest
from ftk import DataError, Message, ToolCall
from ftk_data.environment import compiled
from ftk_data.tools import read_answer, write_answer
from hypothesis import given
from hypothesis import strategies as st

CASES = Path(__file__).parents[4] / "shared" / "golden" / "llamafactory_cases.jsonl"
SPECS = {spec.name: spec for spec in ftk_template_ling.ftk_chat_templates()}
(DIALECT,) = ftk_template_ling.ftk_tool_formats()
TURNS = [Message("user", "Hi"), Message("assistant", "Ho"), Message("user", "Ha"), Message("assistant", "He")]
TOOLS = ({"type": "function", "function": {"name": "look"}},)
TEXTS = st.text() | st.sampled_from(['"', "</tool_call>", "<tool_call>", "12"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
NAMES = st.from_regex(r"[a-z_][\w.-]{0,8}", fullmatch=True)
CALLS = st.lists(st.builds(ToolCall, NAMES, st.dictionaries(TEXTS, VALUES, max_size=3)), min_size=1, max_size=3)


def golden_cases(kind):
    if not CASES.exists():
        pytest.skip(f"{CASES} is not there")
    for case in map(json.loads, CASES.open(encoding="utf-8")):
        if case["kind"] == kind and case.get("tool_format") == "ling":
            yield case


def test_bailing_renders_what_the_published_template_renders(check_published):
    assert check_published(SPECS["bailing"], "bailing") == 42


def test_bailing_gives_each_answer_a_row_that_ends_with_the_end_token(make_renderer):
    made = make_renderer(SPECS["bailing"], "<|startoftext|>", "<|endoftext|>")
    rows = made.render(TURNS)
    assert [["".join(one.text for one in row[:-1]), row[-1].text] for row in rows] == [
        [made.prompt_text(TURNS[:1]), "Ho<|endoftext|>"],
        [made.prompt_text(TURNS[:3]), "He<|endoftext|>"],
    ]
    assert all(row[-1].trained for row in rows)
    assert made.stop == ("<|endoftext|>",)


def test_bailing_refuses_tools_that_its_template_would_leave_out(make_renderer):
    with pytest.raises(DataError, match="leaves out the tools"):
        make_renderer(SPECS["bailing"], None, "<|endoftext|>").prompt_text(TURNS[:1], TOOLS)


def test_bailing_v2_writes_turns_that_end_and_tool_results_together(make_renderer):
    made = make_renderer(SPECS["bailing_v2"], "<|startoftext|>", "<|endoftext|>")
    turns = [
        Message("system", "Be"),
        Message("user", "Look"),
        Message("assistant", tool_calls=(ToolCall("look", {"at": 1}), ToolCall("look", {"at": 2}))),
        Message("tool", "one"),
        Message("tool", "two"),
        Message("assistant", "Done"),
    ]
    (row,) = made.render(turns, TOOLS)
    assert row[0].text.startswith("<role>SYSTEM</role>Be\n# Tools\n\nYou may call one or more functions")
    assert row[0].text.endswith(
        "\ndetailed thinking off<|role_end|><role>HUMAN</role>Look<|role_end|><role>ASSISTANT</role>"
    )
    assert row[2].text == (
        "<role>OBSERVATION</role>\n<tool_response>\none\n</tool_response>\n<tool_response>\ntwo\n</tool_response>"
        "<|role_end|><role>ASSISTANT</role>"
    )
    assert [one.text for one in row if one.trained][1] == "Done<|role_end|>"
    assert made.prompt_text(turns[:5], TOOLS) == "".join(one.text for one in row[:3])
    assert made.stop == ("<|role_end|>", "<|endoftext|>")


def test_tools_are_described_as_the_peer_describes_them():
    cases = [case for case in golden_cases("tool_formatter") if case["input"]]
    assert len(cases) == 3
    for case in cases:
        tools = [{"type": "function", "function": tool} for tool in case["input"]]
        assert [compiled(DIALECT.system).render(system=None, tools=tools)] == case["expected"]


def test_calls_are_written_as_the_peer_writes_them():
    # The peer has no newline between a thought and the call; Hermes' has one between any text and a call
    cases = [case for case in golden_cases("function_formatter") if not case["input"].startswith("<think>")]
    assert len(cases) == 3
    for case in cases:
        given = json.loads(case["input"])
        calls = tuple(
            ToolCall(one["name"], one["arguments"]) for one in (given if isinstance(given, list) else [given])
        )
        assert [write_answer(DIALECT, "", calls)] == case["expected"]
        assert read_answer(DIALECT, case["expected"][0]) == ("", calls)


@given(st.text(), CALLS)
def test_what_the_dialect_writes_it_reads(content, calls):
    read, found = read_answer(DIALECT, write_answer(DIALECT, content, calls))
    assert read == content
    assert [(one.name, json.dumps(one.arguments)) for one in found] == [
        (one.name, json.dumps(one.arguments)) for one in calls
    ]
