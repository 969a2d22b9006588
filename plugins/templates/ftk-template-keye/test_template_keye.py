"""Reference: LLaMA-Factory's strings (golden/llamafactory_templates.jsonl)."""

import json

import ftk_template_keye
import pytest
from ftk import DataError, Media, Message, Text, ToolCall

(SPEC,) = ftk_template_keye.ftk_chat_templates()
HISTORY = [
    Message("user", "1+1?"),
    Message("assistant", "2", reasoning="Add."),
    Message("user", "2+2?"),
    Message("assistant", "4", reasoning="Double."),
]


@pytest.fixture
def renderer(make_renderer):
    return lambda **options: make_renderer(SPEC, None, "<|im_end|>", **options)


def trained(rows):
    return [segment.text for row in rows for segment in row if segment.trained]


def as_ftk(case):
    """The conversation and the tools of one of LLaMA-Factory's cases."""
    turns = [Message("system", case["system"])] if case["system"] else []
    for one in case["messages"]:
        thought, mark, said = one["content"].rpartition("\n</think>\n\n")
        if one["role"] == "function":
            calls = json.loads(said)
            calls = [ToolCall(**call) for call in (calls if isinstance(calls, list) else [calls])]
            reasoning = thought.removeprefix("<think>\n") if mark else None
            turns.append(Message("assistant", reasoning=reasoning, tool_calls=tuple(calls)))
        else:
            turns.append(Message({"observation": "tool"}.get(one["role"], one["role"]), one["content"]))
    tools = json.loads(case["tools"] or "[]")
    return turns, tuple(tool if "function" in tool else {"type": "function", "function": tool} for tool in tools)


def is_whole(case):
    """Whether every answer of the case has its thought, as with ``preserve_thinking``."""
    return case["method"] == "encode_multiturn" and not case["method_kwargs"]


def is_compared(case):
    """Left out is where Qwen3's published template, which the family follows, differs from LLaMA-Factory."""
    if case["case"] == "whitespace":
        return False  # newlines before an answer are stripped
    # thoughts since the last question stay in the prompt
    return case["case"] != "thought_tool" or is_whole(case) or case["enable_thinking"] is False


def test_it_writes_what_llama_factory_writes(peer_cases, make_renderer):
    compared = 0
    for case in filter(is_compared, peer_cases("keye_vl")):
        options = {"preserve_thinking": is_whole(case), "enable_thinking": case["enable_thinking"]}
        rows = make_renderer(SPEC, case["bos_token"], case["eos_token"], **options).render(*as_ftk(case))
        pairs = [case["expected"]] if isinstance(case["expected"][0], str) else case["expected"]
        expected = "".join(prompt + answer for prompt, answer in pairs)
        # LLaMA-Factory leaves the place of a missing system text empty; published templates with these tools do not
        expected = expected.replace("<|im_start|>system\n\n\n#", "<|im_start|>system\n#")
        assert "".join(segment.text for segment in rows[-1]) == expected, (case["case"], case["method"])
        assert trained(rows)[-1] + "\n" == pairs[-1][1]
        compared += 1
    assert compared == 54


def test_each_row_begins_with_the_prompt_of_its_answer(renderer):
    rows = renderer().render(HISTORY)
    assert trained(rows) == ["<think>\nAdd.\n</think>\n\n2<|im_end|>", "<think>\nDouble.\n</think>\n\n4<|im_end|>"]
    assert [row[0].text for row in rows] == [renderer().prompt_text(HISTORY[:1]), renderer().prompt_text(HISTORY[:3])]


def test_without_thinking_the_prompt_holds_the_empty_thought(renderer):
    rows = renderer(enable_thinking=False).render(HISTORY)
    assert trained(rows) == ["2<|im_end|>", "4<|im_end|>"]
    assert rows[1][0].text.endswith("assistant\n<think>\n\n</think>\n\n")
    assert renderer().stop == ("<|im_end|>",)


def test_media_are_written_as_the_spec_says_and_a_sound_is_refused(renderer):
    for kind, shown in SPEC.media.items():
        assert f"user\n{shown}?<|im_end|>" in renderer().prompt_text([Message("user", (Media(kind, "f"), Text("?")))])
    with pytest.raises(DataError, match="part of type audio"):
        renderer().prompt_text([Message("user", (Media("audio", "a.wav"),))])
