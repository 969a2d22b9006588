"""Reference: LFM2's published templates (golden/renders.jsonl) and LLaMA-Factory's tool strings."""

import json
from pathlib import Path

import ftk_template_lfm
import pytest
from ftk import DataError, Message, ToolCall
from ftk_data.environment import compiled
from ftk_data.tools import read_answer, write_answer
from hypothesis import given
from hypothesis import strategies as st

CASES = Path(__file__).parents[4] / "shared" / "golden" / "llamafactory_cases.jsonl"
SPECS = {spec.name: spec for spec in ftk_template_lfm.ftk_chat_templates()}
(DIALECT,) = ftk_template_lfm.ftk_tool_formats()
TEXTS = st.text() | st.sampled_from(['"', "a, b=1)", "]<|tool_call_end|>", "True", "12", "it's", "a\nb"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
NAMES = st.from_regex(r"[a-z_][\w.-]{0,8}", fullmatch=True) | TEXTS
CALLS = st.lists(st.builds(ToolCall, NAMES, st.dictionaries(NAMES, VALUES, max_size=3)), min_size=1, max_size=3)


def golden_cases(kind):
    if not CASES.exists():
        pytest.skip(f"{CASES} is not there")
    for case in map(json.loads, CASES.open(encoding="utf-8")):
        if case["kind"] == kind and case.get("tool_format") == "lfm2":
            yield case


def has_calls(case):
    return any(message.get("tool_calls") for message in case["messages"])


@pytest.mark.parametrize("family", ["lfm2", "lfm2-8b"])
def test_it_renders_what_the_published_template_renders(check_published, family):
    # The published templates leave calls out without a word: they want them written into the content
    assert check_published(SPECS["lfm2"], family, has_calls) == 30


def test_calls_are_written_between_their_marks_and_trained(make_renderer):
    turns = [
        Message("user", "Look"),
        Message("assistant", "So: ", tool_calls=(ToolCall("look", {"at": 'the "x"', "n": 2}), ToolCall("stop", {}))),
        Message("tool", "seen"),
        Message("assistant", "Done"),
    ]
    tools = tuple({"type": "function", "function": {"name": name}} for name in ("look", "stop"))
    made = make_renderer(SPECS["lfm2"], "<|startoftext|>", "<|im_end|>")
    (row,) = made.render(turns, tools)
    trained = [one.text for one in row if one.trained]
    assert trained == [write_answer(DIALECT, "So: ", turns[1].tool_calls) + "<|im_end|>", "Done<|im_end|>"]
    assert "<|im_start|>tool\n<|tool_response_start|>seen<|tool_response_end|><|im_end|>\n" in row[2].text
    assert made.prompt_text(turns[:3], tools) == "".join(one.text for one in row[:3])
    assert made.stop == ("<|im_end|>",)


def test_lfm2_vl_has_a_system_text_and_images(make_renderer):
    made = make_renderer(SPECS["lfm2_vl"], "<|startoftext|>", "<|im_end|>")
    text = made.prompt_text([Message("user", "Hi")])
    assert text == (
        "<|startoftext|><|im_start|>system\nYou are a helpful multimodal assistant by Liquid AI.<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    parts = [{"type": "image"}, {"type": "text", "text": "What?"}]
    assert "user\n<image>What?<|im_end|>" in compiled(made.source).render(messages=[{"role": "user", "content": parts}])


def test_tools_are_described_as_the_peer_describes_them():
    # The peer takes a function out of its wrapping, which the published template leaves as it is
    cases = [case for case in golden_cases("tool_formatter") if case["input"] and "type" not in case["input"][0]]
    assert len(cases) == 1
    for case in cases:
        assert [compiled(DIALECT.system).render(system=None, tools=case["input"])] == case["expected"]


def test_calls_are_written_as_the_peer_writes_them():
    compared = 0
    for case in golden_cases("function_formatter"):
        before, _, _ = case["input"].rpartition("</think>\n\n")
        content = before + "</think>\n\n" if before else ""
        given = json.loads(case["input"].removeprefix(content))
        calls = [ToolCall(one["name"], one["arguments"]) for one in (given if isinstance(given, list) else [given])]
        # The peer leaves the quotes in a text as they are, so that nobody can read them back (reference, section 6)
        expected = case["expected"][0].replace('"x "q" ', r'"x \"q\" ')
        assert write_answer(DIALECT, content, calls) == expected
        assert read_answer(DIALECT, expected) == (content, tuple(calls))
        compared += 1
    assert compared == 3


@given(st.text() | st.sampled_from(["a\n", "<|tool_call_start|>"]), CALLS)
def test_what_the_dialect_writes_it_reads_or_it_refuses_to_write(content, calls):
    try:
        text = write_answer(DIALECT, content, calls)
    except DataError:
        return
    read, found = read_answer(DIALECT, text)
    assert read == content
    assert [(one.name, json.dumps(one.arguments)) for one in found] == [
        (one.name, json.dumps(one.arguments)) for one in calls
    ]


def test_a_model_may_write_as_python_does():
    text = "So: <|tool_call_start|>[look(at='it', deep=[True, None, {'a': -1}]), a.b(x=null)]<|tool_call_end|>Looking."
    calls = (ToolCall("look", {"at": "it", "deep": [True, None, {"a": -1}]}), ToolCall("a.b", {"x": None}))
    assert read_answer(DIALECT, text) == ("So: ", calls)


@pytest.mark.parametrize("text", ["No call.", "<|tool_call_start|>[f(x=y)]<|tool_call_end|>", "<|tool_call_start|>[f("])
def test_what_is_no_call_comes_back_as_it_is(text):
    assert read_answer(DIALECT, text) == (text, ())


def test_a_name_that_cannot_be_told_from_the_rest_is_refused(make_renderer):
    with pytest.raises(DataError, match="a name with spaces"):
        write_answer(DIALECT, "", [ToolCall("look", {"a b": 1})])
    turns = [Message("user", "?"), Message("assistant", tool_calls=(ToolCall("look", {"a=b": 1}),))]
    with pytest.raises(DataError, match="a name with spaces"):
        make_renderer(SPECS["lfm2"], "<|startoftext|>", "<|im_end|>").render(turns)
