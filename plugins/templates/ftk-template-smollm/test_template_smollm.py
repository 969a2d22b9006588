"""Reference: SmolLM3's published template (golden/renders.jsonl); LLaMA-Factory's strings for SmolLM and SmolLM2."""

import json
import re

import ftk_template_smollm
import pytest
from ftk import Message, ToolCall
from ftk_data.environment import compiled
from ftk_data.tools import HERMES, read_answer

SPECS = {spec.name: spec for spec in ftk_template_smollm.ftk_chat_templates()}
(DIALECT,) = ftk_template_smollm.ftk_tool_formats()
TURNS = [Message("user", "Hi"), Message("assistant", "Ho"), Message("user", "Ha"), Message("assistant", "He")]
TOOLS = ({"type": "function", "function": {"name": "look"}},)


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


def test_smollm3_renders_what_the_published_template_renders(check_published):
    # The published file is one that leaves tools and calls out without a word
    assert check_published(SPECS["smollm3"], "smollm3", lambda case: bool(case["tools"])) == 30


@pytest.mark.parametrize("name", ["smollm", "smollm2"])
def test_the_strings_are_those_of_the_peer(make_renderer, peer_cases, name):
    cases = peer_cases(name)
    assert len(cases) == 26
    for case in cases:
        pairs = [case["expected"]] if case["method"] == "encode_oneturn" else case["expected"]
        (row,) = make_renderer(SPECS[name], "<s>", "</s>").render([*messages_of(case)], tools_of(case))
        assert "".join(one.text for one in row) == "".join(map("".join, pairs)), case["case"]
        if case["method"] == "encode_multiturn":
            trained = [one.text for one in row if one.trained]
            assert trained == [answer.removesuffix("\n") for _, answer in pairs], case["case"]


@pytest.mark.parametrize("name", SPECS)
def test_answers_are_trained_up_to_the_stop_token(make_renderer, name):
    made = make_renderer(SPECS[name], None, "<|im_end|>")
    (row,) = made.render(TURNS)
    assert [one.text for one in row if one.trained] == ["Ho<|im_end|>", "He<|im_end|>"]
    assert made.prompt_text(TURNS[:3]) == "".join(one.text for one in row[:3])
    assert made.stop == ("<|im_end|>",)


def test_without_thinking_the_prompt_holds_the_empty_thought(make_renderer):
    made = make_renderer(SPECS["smollm3"], None, "<|im_end|>", enable_thinking=False)
    turns = [Message("user", "1+1?"), Message("assistant", "2", reasoning="Add.")]
    ((prompt, answer, _),) = made.render(turns)
    assert answer.text == "2<|im_end|>"
    assert prompt.text == made.prompt_text(turns[:1])
    assert prompt.text.endswith("<|im_start|>assistant\n<think>\n\n</think>\n")


def test_the_system_text_wins_over_enable_thinking(make_renderer):
    made = make_renderer(SPECS["smollm3"], None, "<|im_end|>", enable_thinking=True)
    text = made.prompt_text([Message("system", "Be brief. /no_think"), Message("user", "1+1?")])
    assert "Reasoning Mode: /no_think\n\n## Custom Instructions\n\nBe brief.\n\n<|im_end|>" in text


def test_smollm3_writes_reasoning_into_the_answer(make_renderer):
    turns = [Message("user", "1+1?"), Message("assistant", "2", reasoning="Add.")]
    row = make_renderer(SPECS["smollm3"], None, "<|im_end|>").render(turns)[0]
    assert row[1].text == "<think>\nAdd.\n</think>\n\n2<|im_end|>"


def test_smollm3_writes_tools_in_its_dialect(make_renderer):
    turns = [Message("user", "?"), Message("assistant", "So:", tool_calls=(ToolCall("look", {"at": 1}),))]
    (row,) = make_renderer(SPECS["smollm3"], None, "<|im_end|>").render(turns, TOOLS)
    answer = row[1].text.removesuffix("<|im_end|>")
    assert read_answer(DIALECT, answer, TOOLS) == ("So:", turns[1].tool_calls)
    assert compiled(DIALECT.system).render(system=None, tools=TOOLS) + "\n\n<|im_end|>\n<|im_start|>user" in row[0].text
    assert (DIALECT.answer, DIALECT.target) == (HERMES.answer, HERMES.target)
