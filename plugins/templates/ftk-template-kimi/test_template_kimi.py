"""Reference: Kimi K2's published template (golden/renders.jsonl, and the file itself where the sandbox of the renders
refused it); LLaMA-Factory's strings for Kimi-VL."""

import json
import re
from pathlib import Path

import ftk_template_kimi
import pytest
from ftk import DataError, Message, ToolCall
from ftk_data.environment import render_marked
from ftk_data.tools import read_answer, write_answer
from hypothesis import given
from hypothesis import strategies as st
from jinja2.sandbox import SandboxedEnvironment

GOLDEN = Path(__file__).parents[4] / "shared" / "golden"
SPECS = {spec.name: spec for spec in ftk_template_kimi.ftk_chat_templates()}
(DIALECT,) = ftk_template_kimi.ftk_tool_formats()
HOSTILE = st.sampled_from(["<|tool_call_end|>", "<|tool_calls_section_end|>", '"', "functions.x:0", "a\nb"])
TEXTS = st.text() | HOSTILE
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
NAMES = st.from_regex(r"[a-z_][\w.-]{0,8}", fullmatch=True) | TEXTS
CALLS = st.lists(st.builds(ToolCall, NAMES, st.dictionaries(TEXTS, VALUES, max_size=3)), min_size=1, max_size=3)


def messages_of(case, thinking):
    """The peer's messages as ftk has them: calls, and the thoughts before them, taken out of the text."""
    yield from [Message("system", case["system"])] if case["system"] else []
    for one in case["messages"]:
        role, thought, content = one["role"], "", one["content"]
        if thinking and thinking[1] in content:
            thought, _, content = content.removeprefix(thinking[0]).partition(thinking[1])
        if role == "function":
            start = re.search(r"\[?\{", content).start()
            calls = json.loads(content[start:])
            calls = calls if isinstance(calls, list) else [calls]
            made = tuple(ToolCall(call["name"], call["arguments"]) for call in calls)
            yield Message("assistant", content[:start], reasoning=thought or None, tool_calls=made)
        else:
            yield Message("tool" if role == "observation" else role, content, reasoning=thought or None)


def tools_of(case):
    return tuple({"type": "function", "function": tool} for tool in json.loads(case["tools"] or "[]"))


def test_kimi_k2_renders_what_the_published_template_renders(check_published):
    # a video, which the published template drops without a word, is refused here
    assert check_published(SPECS["kimi_k2"], "kimi-k2-thinking", lambda case: "video" in case["case"]) == 36


def test_a_thought_in_the_text_of_an_answer_is_one(make_renderer):
    made = make_renderer(SPECS["kimi_k2"])
    field = [Message("user", "?"), Message("assistant", "A", reasoning="R")]
    inline = [Message("user", "?"), Message("assistant", "<think>\nR\n</think>\n\nA")]
    assert made.render(inline) == made.render(field)
    assert made.render(field)[0][1].text == "<think>R</think>A<|im_end|>"


def test_kimi_k2_writes_calls_as_the_published_template_does(make_renderer):
    """The renders lack these cases: their sandbox forbids the list that the file appends to."""
    if not GOLDEN.exists():
        pytest.skip(f"{GOLDEN} is not there")
    environment = SandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    published = environment.from_string((GOLDEN / "templates" / "kimi-k2-thinking.jinja").read_text(encoding="utf-8"))
    made = make_renderer(SPECS["kimi_k2"], "[BOS]", "[EOS]")
    cases = [json.loads(line) for line in (GOLDEN / "renders.jsonl").open(encoding="utf-8")]
    cases = [case for case in cases if case["family"] == "kimi-k2-thinking" and "tool_call" in case["case"]]
    assert len(cases) == 12
    for case in cases:
        variables = {name: case[name] for name in ("messages", "tools", "add_generation_prompt")}
        text, _ = render_marked(made.source, **variables)
        assert text == published.render(**variables), case["case"]


def rendered_like(case, spec, make_renderer):
    if case["method"] == "encode_oneturn":
        return make_renderer(spec, "<s>", "</s>", enable_thinking=case["enable_thinking"])
    return make_renderer(spec, "<s>", "</s>", preserve_thinking=True)


def is_compared(case):
    if case["method"] == "encode_multiturn" and (case["method_kwargs"] or not case["enable_thinking"]):
        return False  # the peer trains answers there that lack the thought which its own prompts ask for
    if case["case"] == "whitespace":  # newlines between an empty thought and the answer are left out, as Qwen3 does
        return case["enable_thinking"] is not True
    # the peer drops the thought of a step after the last question, which the model has before it when it answers
    return case["case"] != "thought_tool" or case["method"] != "encode_oneturn" or case["enable_thinking"] is False


def test_kimi_vl_writes_the_strings_of_the_peer(make_renderer, peer_cases):
    spec = SPECS["kimi_vl"]
    cases = [case for case in peer_cases("kimi_vl") if is_compared(case)]
    assert len(cases) == 48 - 16
    for case in cases:
        pairs = [case["expected"]] if case["method"] == "encode_oneturn" else case["expected"]
        rows = rendered_like(case, spec, make_renderer).render([*messages_of(case, spec.thinking)], tools_of(case))
        assert "".join(one.text for one in rows[-1]) == "".join(map("".join, pairs)), case["case"]
        assert [one.text for one in rows[-1] if one.trained][-1] == pairs[-1][1], case["case"]


def test_moonlight_has_the_system_text_of_its_model(make_renderer):
    made = make_renderer(SPECS["moonlight"], "[BOS]", "[EOS]")
    turns = [Message("user", "Hi"), Message("assistant", "Ho"), Message("user", "Ha"), Message("assistant", "He")]
    (row,) = made.render(turns)
    assert row[0].text == (
        "<|im_system|>system<|im_middle|>You are a helpful assistant provided by Moonshot-AI.<|im_end|>"
        "<|im_user|>user<|im_middle|>Hi<|im_end|><|im_assistant|>assistant<|im_middle|>"
    )
    assert [one.text for one in row if one.trained] == ["Ho<|im_end|>", "He<|im_end|>"]
    assert made.stop[0] == "<|im_end|>"


def test_kimi_k2_trains_the_reasoning_that_its_template_drops(make_renderer):
    turns = [
        Message("user", "1+1?"),
        Message("assistant", "2", reasoning="Add."),
        Message("user", "2+2?"),
        Message("assistant", "4", reasoning="Double."),
    ]
    made = make_renderer(SPECS["kimi_k2"], "[BOS]", "[EOS]")
    rows = made.render(turns)
    assert [one.text for row in rows for one in row if one.trained] == [
        "<think>Add.</think>2<|im_end|>",
        "<think>Double.</think>4<|im_end|>",
    ]
    assert [row[0].text for row in rows] == [made.prompt_text(turns[:1]), made.prompt_text(turns[:3])]
    (kept,) = make_renderer(SPECS["kimi_k2"], "[BOS]", "[EOS]", preserve_thinking=True).render(turns)
    assert [one.trained for one in kept] == [False, True, False, True]


@given(st.text() | st.sampled_from(["a\n", "<|tool_calls_section_begin|>"]), CALLS)
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
    calls = (ToolCall("look", {"at": '<|tool_call_end|> "x"'}), ToolCall("a.b:c", {}))
    assert write_answer(DIALECT, "So:", calls) == (
        "So:<|tool_calls_section_begin|><|tool_call_begin|>functions.look:0<|tool_call_argument_begin|>"
        '{"at": "<|tool_call_end|> \\"x\\""}<|tool_call_end|><|tool_call_begin|>functions.a.b:c:1'
        "<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_calls_section_end|>"
    )
    assert read_answer(DIALECT, write_answer(DIALECT, "So:", calls)) == ("So:", calls)
    assert read_answer(DIALECT, "No call.") == ("No call.", ())
