"""Reference: LLaMA-Factory's strings and tool texts (golden/llamafactory_*.jsonl), the published templates of Alpaca,
Vicuna and OpenChat 3.5 (golden/renders.jsonl, golden/templates)."""

import json
import re
from dataclasses import replace
from pathlib import Path

import ftk_template_classic
import pytest
from ftk import DataError, Message, ToolCall
from ftk_data.environment import TemplateRefused, compiled, render_marked
from ftk_data.react import DEFAULT as DIALECT
from ftk_data.tools import read_answer, write_answer
from hypothesis import given
from hypothesis import strategies as st

GOLDEN = Path(__file__).parents[4] / "shared" / "golden"
SPECS = {spec.name: spec for spec in ftk_template_classic.ftk_chat_templates()}
TURNS = [Message("user", "Hi"), Message("assistant", "Ho"), Message("user", "Ha"), Message("assistant", "He")]
WITH_STRINGS = (
    "default", "empty", "fewshot", "openchat-3.6", "starchat", "xuanyuan", "sailor", "telechat2", "opencoder", "index",
    "breeze", "yuan", "dbrx",
)  # fmt: skip
WITHOUT_AN_END = ("empty", "fewshot", "index", "breeze")
"""Answers of the peer that nothing ends; here each has the end token, so that a model learns to stop."""
TEXTS = st.text() | st.sampled_from(
    ['"', "Action: x", "\nAction: f\nAction Input: {}", "a\n", "</think>\n", "</think>\n\n"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
NAMES = st.from_regex(r"[a-z_][\w.-]{0,8}", fullmatch=True) | TEXTS
CALLS = st.lists(st.builds(ToolCall, NAMES, st.dictionaries(TEXTS, VALUES, max_size=3)), min_size=1, max_size=3)


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


def rows_of(file):
    if not GOLDEN.exists():
        pytest.skip(f"{GOLDEN} is not there")
    return [json.loads(line) for line in (GOLDEN / file).open(encoding="utf-8")]


@pytest.mark.parametrize("name", WITH_STRINGS)
def test_the_strings_are_those_of_the_peer(make_renderer, peer_cases, name):
    spec = SPECS[name]
    cases = peer_cases(name)
    assert len(cases) == 26
    for case in cases:
        eos = case["eos_token"]
        end = eos if name in WITHOUT_AN_END else ""
        pairs = [case["expected"]] if case["method"] == "encode_oneturn" else case["expected"]
        (row,) = make_renderer(spec, "<s>", eos).render([*messages_of(case)], tools_of(case))
        text = "".join(one.text for one in row)
        assert (text.replace(eos, "") if end else text) == "".join(map("".join, pairs)), case["case"]
        if case["method"] == "encode_multiturn":
            trained = [one.text for one in row if one.trained]
            assert trained == [answer.removesuffix(spec.assistant_end) + end for _, answer in pairs], case["case"]


def test_openchat_renders_what_the_published_template_renders(check_published):
    # The published template leaves tools and calls out without a word
    assert check_published(SPECS["openchat"], "openchat3.5", lambda case: bool(case["tools"])) == 26


@pytest.mark.parametrize(("family", "name"), [("alpaca", "alpaca"), ("vicuna-chujie", "vicuna_lines")])
def test_it_renders_the_published_template_without_the_layout_of_its_file(make_renderer, family, name):
    """Its author takes the line ends and the indentation out of the file before use; the renders were made with them.

    The system text of Alpaca is LLaMA-Factory's default, where the published template has none.
    """
    cases = [case for case in rows_of("renders.jsonl") if case["family"] == family]
    file = (GOLDEN / "templates" / f"{family}.jinja").read_text(encoding="utf-8")
    published = file.replace("    ", "").replace("\n", "")
    made = make_renderer(replace(SPECS[name], default_system=None), "<s>", "</s>")
    compared = 0
    for case in cases:
        variables = {"add_generation_prompt": case["add_generation_prompt"], "tools": case["tools"], **made.tokens}
        try:
            expected, _ = render_marked(published, case["messages"], **variables)
        except TemplateRefused:  # a turn of a tool
            continue
        if not case["tools"]:
            assert render_marked(made.source, case["messages"], **variables)[0] == expected, case["case"]
            assert "".join(expected.split()) == "".join(case["rendered"].split())
            compared += 1
    assert compared == 26


@pytest.mark.parametrize(
    ("name", "prompt", "between"),
    [
        ("vicuna", "Be USER: Hi ASSISTANT:", "USER: Ha ASSISTANT:"),
        ("solar", "### System:\nBe \n\n### User:\nHi\n\n### Assistant:\n", "### User:\nHa\n\n### Assistant:\n"),
        ("zephyr", "<|system|>\nBe </s><|user|>\nHi</s><|assistant|>\n", "<|user|>\nHa</s><|assistant|>\n"),
    ],
)
def test_formats_without_golden_strings_are_as_the_reference_tells(make_renderer, name, prompt, between):
    made = make_renderer(SPECS[name], "<s>", "</s>")
    (row,) = made.render([Message("system", "Be "), *TURNS])
    assert [one[:2] for one in row] == [(prompt, False), ("Ho</s>", True), (between, False), ("He</s>", True)]


@pytest.mark.parametrize("name", SPECS)
def test_answers_are_trained_up_to_the_stop_token(make_renderer, name):
    made = make_renderer(SPECS[name], "<s>", "</s>")
    (row,) = made.render(TURNS)
    stop = SPECS[name].stop[0] if SPECS[name].stop and SPECS[name].stop[0] in SPECS[name].assistant else "</s>"
    assert [one.text.strip() for one in row if one.trained] == ["Ho" + stop, "He" + stop]
    assert made.prompt_text(TURNS[:3]) == "".join(one.text for one in row[:3])
    assert stop in made.stop


def test_system_texts_and_stop_words_are_those_of_the_peer():
    if not GOLDEN.exists():
        pytest.skip(f"{GOLDEN} is not there")
    known = {one["template"]: one for one in json.loads((GOLDEN / "llamafactory_template_meta.json").read_text())}
    assert set(SPECS) - set(known) == {"vicuna_lines"}
    for name in set(SPECS) & set(known):
        default = SPECS[name].default_system or ""
        assert default + ("\n\n" if name == "alpaca" else "") == known[name]["default_system"], name
        # OpenChat 3.5 ends turns with a token that its tokenizer calls eos, which the peer writes
        assert list(SPECS[name].stop) == known[name]["stop_words"] or name == "openchat", name


def test_tools_are_described_as_the_peer_describes_them():
    cases = [case for case in rows_of("llamafactory_cases.jsonl") if case["kind"] == "tool_formatter"]
    cases = [case for case in cases if case["tool_format"] == "default" and case["input"]]
    assert len(cases) == 3
    for case in cases:
        assert [compiled(DIALECT.system).render(system=None, tools=case["input"])] == case["expected"]


def test_calls_are_written_and_read_as_the_peer_does():
    cases = [case for case in rows_of("llamafactory_cases.jsonl") if case["kind"] == "function_formatter"]
    cases = [case for case in cases if case["tool_format"] == "default"]
    assert len(cases) == 4
    for case in cases:
        content = case["input"][: re.search(r"\[?\{", case["input"]).start()]
        calls = json.loads(case["input"][len(content) :])
        calls = tuple(
            ToolCall(one["name"], one["arguments"]) for one in (calls if isinstance(calls, list) else [calls])
        )
        assert [write_answer(DIALECT, content, calls)] == case["expected"]
        assert read_answer(DIALECT, case["expected"][0]) == (content, calls)


def test_a_tool_that_says_little_is_described_all_the_same():
    tools = [{"name": "look"}, {"name": "list", "parameters": {"properties": {"items": {"type": "array"}}}}]
    text = compiled(DIALECT.system).render(system="Be.", tools=tools)
    assert text.startswith(
        "Be.You have access to the following tools:\n> Tool Name: look\nTool Description: \nTool Args:\n"
    )
    assert "  - items (array): \n\nUse the following format" in text


@given(TEXTS, CALLS)
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


def test_ordinary_calls_are_never_refused():
    calls = (ToolCall("look", {"at": 'a "b"\nAction: c'}), ToolCall("stop", {}))
    text = write_answer(DIALECT, "I look.", calls)
    assert text.startswith('I look.\nAction: look\nAction Input: {"at": "a ')
    assert read_answer(DIALECT, text) == ("I look.", calls)
    assert read_answer(DIALECT, text + "\nObservation: x") == ("I look.", calls)


@pytest.mark.parametrize("text", ["No call.", "Action: look\nAction Input: it", "Action: look\nAction Input: [1]"])
def test_what_is_no_call_comes_back_as_it_is(text):
    assert read_answer(DIALECT, text) == (text, ())


def test_text_that_reads_like_a_call_is_refused():
    with pytest.raises(DataError, match="begins with Action"):
        write_answer(DIALECT, "So:\nAction: x", [ToolCall("look", {})])
