"""Reference: LLaMA-Factory's strings (golden/llamafactory_templates.jsonl)."""

import json

import ftk_template_moss
import pytest
from ftk import DataError, Media, Message, Text, ToolCall

(SPEC,) = ftk_template_moss.ftk_chat_templates()
TURNS = [Message("user", "a"), Message("assistant", "b"), Message("user", "c"), Message("assistant", "d")]


@pytest.fixture
def renderer(make_renderer):
    return make_renderer(SPEC, None, "<|im_end|>")


def as_ftk(case):
    """The conversation and the tools of one of LLaMA-Factory's cases."""
    turns = [Message("system", case["system"])] if case["system"] else []
    for one in case["messages"]:
        if one["role"] == "function":
            calls = json.loads(one["content"])
            calls = [ToolCall(**call) for call in (calls if isinstance(calls, list) else [calls])]
            turns.append(Message("assistant", tool_calls=tuple(calls)))
        else:
            turns.append(Message({"observation": "tool"}.get(one["role"], one["role"]), one["content"]))
    tools = json.loads(case["tools"] or "[]")
    return turns, tuple(tool if "function" in tool else {"type": "function", "function": tool} for tool in tools)


def test_it_writes_what_llama_factory_writes(peer_cases, make_renderer):
    compared = 0
    for case in peer_cases("moss_vl"):
        if case["case"] == "thought_tool":  # a thought is text here, and a newline stands between text and call
            continue
        (row,) = make_renderer(SPEC, case["bos_token"], case["eos_token"]).render(*as_ftk(case))
        pairs = [case["expected"]] if isinstance(case["expected"][0], str) else case["expected"]
        assert "".join(segment.text for segment in row) == "".join(prompt + answer for prompt, answer in pairs)
        assert row[-2].text + "\n" == pairs[-1][1]
        compared += 1
    assert compared == 24


def test_a_conversation_is_one_row_that_begins_with_each_prompt(renderer):
    (row,) = renderer.render(TURNS)
    assert [segment.text for segment in row if segment.trained] == ["b<|im_end|>", "d<|im_end|>"]
    assert row[0].text == renderer.prompt_text(TURNS[:1])
    assert "".join(segment.text for segment in row[:3]) == renderer.prompt_text(TURNS[:3])
    assert renderer.stop == ("<|im_end|>",)


def test_images_and_videos_are_one_placeholder_each_and_a_sound_is_refused(renderer):
    seen = Message("user", (Media("image", "a.png"), Media("video", "b.mp4"), Text("?")))
    assert "user\n<|image_pad|><|video_pad|>?<|im_end|>" in renderer.prompt_text([seen])
    with pytest.raises(DataError, match="part of type audio"):
        renderer.prompt_text([Message("user", (Media("audio", "a.wav"),))])
