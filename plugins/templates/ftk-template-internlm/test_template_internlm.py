"""Reference: InternVL3's published template (golden/renders.jsonl); LLaMA-Factory's strings for Intern-S1."""

import json
import re

import ftk_template_internlm
import pytest
from ftk import Message, ToolCall

SPECS = {spec.name: spec for spec in ftk_template_internlm.ftk_chat_templates()}
TURNS = [Message("user", "Hi"), Message("assistant", "Ho"), Message("user", "Ha"), Message("assistant", "He")]


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


def left_out(case):
    # The published template leaves tools and calls out without a word
    return bool(case["tools"])


def test_intern_vl_renders_what_the_published_template_renders(check_published):
    assert check_published(SPECS["intern_vl"], "internvl3", left_out) == 32


def test_intern_s1_writes_the_strings_of_the_peer(make_renderer, peer_cases):
    cases = peer_cases("intern_s1")
    assert len(cases) == 26
    for case in cases:
        pairs = [case["expected"]] if case["method"] == "encode_oneturn" else case["expected"]
        (row,) = make_renderer(SPECS["intern_s1"], "<s>", "</s>").render([*messages_of(case)], tools_of(case))
        assert "".join(one.text for one in row) == "".join(map("".join, pairs)), case["case"]
        if case["method"] == "encode_multiturn":
            trained = [one.text for one in row if one.trained]
            assert trained == [answer.removesuffix("\n") for _, answer in pairs], case["case"]


def test_intern2_has_the_system_text_of_its_model(make_renderer):
    text = make_renderer(SPECS["intern2"], "<s>", "</s>").prompt_text(TURNS[:1])
    assert text.startswith(
        "<s><|im_start|>system\nYou are an AI assistant whose name is InternLM (书生·浦语).\n- Intern"
    )
    assert text.endswith("such as English and 中文.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.parametrize("name", SPECS)
def test_answers_are_trained_up_to_the_stop_token(make_renderer, name):
    made = make_renderer(SPECS[name], "<s>", "</s>")
    (row,) = made.render(TURNS)
    assert [one.text for one in row if one.trained] == ["Ho<|im_end|>", "He<|im_end|>"]
    assert made.prompt_text(TURNS[:3]) == "".join(one.text for one in row[:3])
    assert made.stop[0] == "<|im_end|>"


def test_a_video_stands_where_it_was(make_renderer):
    source = make_renderer(SPECS["intern_vl"], "<s>", "</s>").source
    assert "<video>\\n" in source
