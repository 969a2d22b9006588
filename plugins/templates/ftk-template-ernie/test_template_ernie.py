"""Reference: LLaMA-Factory's strings for the three ERNIE templates (golden/llamafactory_templates.jsonl)."""

import json
import re

import ftk_template_ernie
import pytest
from ftk import Message, ToolCall

SPECS = {spec.name: spec for spec in ftk_template_ernie.ftk_chat_templates()}
TURNS = [Message("user", "Hi"), Message("assistant", "Ho"), Message("user", "Ha"), Message("assistant", "He")]
EMPTY_THOUGHT = "<think>\n\n</think>\n\n"


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


@pytest.mark.parametrize("name", ["ernie", "ernie_nothink"])
def test_the_strings_are_those_of_the_peer(make_renderer, peer_cases, name):
    cases = peer_cases(name)
    assert len(cases) == 26
    for case in cases:
        pairs = [case["expected"]] if case["method"] == "encode_oneturn" else case["expected"]
        (row,) = make_renderer(SPECS[name], "<s>", "</s>").render([*messages_of(case, None)], tools_of(case))
        assert "".join(one.text for one in row) == "".join(map("".join, pairs)), case["case"]
        if case["method"] == "encode_multiturn":
            trained = [one.text for one in row if one.trained]
            assert trained == [answer.removesuffix("\n\n") for _, answer in pairs], case["case"]


def is_compared(case):
    if case["method"] == "encode_multiturn" and (case["method_kwargs"] or not case["enable_thinking"]):
        return False  # the peer trains answers there that lack the thought which its own prompts ask for
    if case["case"] == "whitespace":  # newlines between an empty thought and the answer are left out, as Qwen3 does
        return case["enable_thinking"] is not True
    # the peer drops the thought of a step after the last question, which the model has before it when it answers
    return case["case"] != "thought_tool" or case["method"] != "encode_oneturn" or case["enable_thinking"] is False


def test_ernie_vl_writes_the_strings_of_the_peer_with_the_thought_inside_the_answer(make_renderer, peer_cases):
    spec = SPECS["ernie_vl"]
    cases = [case for case in peer_cases("ernie_vl") if is_compared(case)]
    assert len(cases) == 32
    for case in cases:
        one_turn = case["method"] == "encode_oneturn"
        options = {"enable_thinking": case["enable_thinking"]} if one_turn else {"preserve_thinking": True}
        text = "".join(case["expected"] if one_turn else map("".join, case["expected"]))
        # The peer puts an empty thought in front of "Assistant:", where the question still is; a given one after it
        text = text.replace(EMPTY_THOUGHT + "\nAssistant: ", "\nAssistant: " + EMPTY_THOUGHT)
        made = make_renderer(spec, "<s>", "<|end_of_sentence|>", **options)
        rows = made.render([*messages_of(case, spec.thinking)], tools_of(case))
        assert "".join(one.text for one in rows[-1]) == text, case["case"]


@pytest.mark.parametrize("name", ["ernie", "ernie_nothink"])
def test_answers_are_trained_up_to_the_stop_token(make_renderer, name):
    made = make_renderer(SPECS[name], "<s>", "</s>")
    (row,) = made.render(TURNS)
    stop = SPECS[name].stop[0]
    assert [one.text for one in row if one.trained] == ["Ho" + stop, "He" + stop]
    assert made.prompt_text(TURNS[:3]) == "".join(one.text for one in row[:3])
    assert made.stop[0] == stop


def test_the_name_of_the_speaker_is_prompt_and_the_thought_is_answer(make_renderer):
    turns = [Message("user", "1+1?"), Message("assistant", "2", reasoning="Add.")]
    ((prompt, answer),) = make_renderer(SPECS["ernie_vl"], "<s>", "<|end_of_sentence|>").render(turns)
    assert prompt.text == "User: 1+1?\nAssistant: "
    assert answer.text == "<think>\nAdd.\n</think>\n\n2<|end_of_sentence|>"
