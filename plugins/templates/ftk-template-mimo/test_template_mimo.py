"""Reference: MiMo-VL's published template (golden/renders.jsonl); LLaMA-Factory's strings for MiMo and MiMo-V2."""

import json
import re

import ftk_template_mimo
import pytest
from ftk import Message, ToolCall

SPECS = {spec.name: spec for spec in ftk_template_mimo.ftk_chat_templates()}
TURNS = [
    Message("user", "1+1?"),
    Message("assistant", "2", reasoning="Add."),
    Message("user", "2+2?"),
    Message("assistant", "4", reasoning="Double."),
]


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


def test_mimo_vl_renders_what_the_published_template_renders(check_published):
    assert check_published(SPECS["mimo_vl"], "mimo_vl", lambda case: False) == 42


def is_compared(case):
    if case["method"] == "encode_multiturn" and (case["method_kwargs"] or not case["enable_thinking"]):
        return False  # the peer trains answers there that lack the thought which its own prompts ask for
    if case["case"] == "whitespace":  # newlines between an empty thought and the answer are left out, as Qwen3 does
        return case["enable_thinking"] is not True
    # the peer drops the thought of a step after the last question, which the model has before it when it answers
    return case["case"] != "thought_tool" or case["method"] != "encode_oneturn" or case["enable_thinking"] is False


@pytest.mark.parametrize("name", ["mimo", "mimo_v2"])
def test_the_strings_are_those_of_the_peer(make_renderer, peer_cases, name):
    spec = SPECS[name]
    cases = [case for case in peer_cases(name) if is_compared(case)]
    assert len(cases) == 32
    for case in cases:
        one_turn = case["method"] == "encode_oneturn"
        options = {"enable_thinking": case["enable_thinking"]} if one_turn else {"preserve_thinking": True}
        pairs = [case["expected"]] if one_turn else case["expected"]
        made = make_renderer(spec, "<s>", "<|im_end|>", **options)
        rows = made.render([*messages_of(case, spec.thinking)], tools_of(case))
        assert "".join(one.text for one in rows[-1]) == "".join(map("".join, pairs)), case["case"]
        assert [one.text for one in rows[-1] if one.trained][-1] + "\n" == pairs[-1][1], case["case"]


@pytest.mark.parametrize(("name", "thought"), [("mimo", "<think>\n{}\n</think>\n\n"), ("mimo_v2", "<think>{}</think>")])
def test_history_without_its_reasoning_gives_each_answer_a_row(make_renderer, name, thought):
    made = make_renderer(SPECS[name], None, "<|im_end|>")
    rows = made.render(TURNS)
    assert [one.text for row in rows for one in row if one.trained] == [
        thought.format("Add.") + "2<|im_end|>",
        thought.format("Double.") + "4<|im_end|>",
    ]
    assert [row[0].text for row in rows] == [made.prompt_text(TURNS[:1]), made.prompt_text(TURNS[:3])]
    assert made.stop == ("<|im_end|>",)


def test_mimo_vl_keeps_reasoning_in_the_answer_and_one_row(make_renderer):
    (row,) = make_renderer(SPECS["mimo_vl"], None, "<|im_end|>").render(TURNS)
    assert row[1].text == "<think>\nAdd.\n</think>\n\n2<|im_end|>"
    assert [one.trained for one in row] == [False, True, False, True, False]
