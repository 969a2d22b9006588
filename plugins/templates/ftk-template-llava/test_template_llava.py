"""Reference: the published template's renders of LLaVA 1.5 (golden/renders.jsonl) and LLaMA-Factory's rows of the other
families (golden/llamafactory_templates.jsonl)."""

import json

import ftk_template_llava
import pytest
from ftk import DataError, Media, Message, Text, ToolCall

SPECS = {spec.name: spec for spec in ftk_template_llava.ftk_chat_templates()}
ROLES = {"observation": "tool"}
TURNS = [Message("user", "Hi"), Message("assistant", "Ho"), Message("user", "Ha"), Message("assistant", "He")]
TOOLS = ({"type": "function", "function": {"name": "look"}},)


def test_llava_renders_what_the_published_template_renders(check_published):
    """Calls, results and videos are left out there without a word, and refused here."""
    assert (
        check_published(SPECS["llava"], "llava-1.5", lambda case: case["case"].startswith(("tool_call", "video"))) == 34
    )


def as_message(one):
    if one["role"] != "function":
        return Message(ROLES.get(one["role"], one["role"]), one["content"])
    listed = json.loads(one["content"])
    listed = listed if isinstance(listed, list) else [listed]
    return Message("assistant", tool_calls=tuple(ToolCall(call["name"], call["arguments"]) for call in listed))


def is_left_out(case):
    """Only Qwen's dialect is here. A thought in front of a call has a line break less there."""
    return case["tools"] and (case["template"] != "llava_next_qwen" or case["case"] == "thought_tool")


@pytest.mark.parametrize(
    ("name", "num"),
    [
        ("llava_next", 14),
        ("llava_next_llama3", 14),
        ("llava_next_qwen", 24),
        ("llava_next_yi", 14),
        ("llava_next_video", 14),
        ("llava_next_video_mistral", 14),
        ("llava_next_video_yi", 14),
        ("video_llava", 14),
    ],
)
def test_the_rows_are_those_of_llamafactory(peer_cases, make_renderer, name, num):
    compared = 0
    for case in peer_cases(name):
        if is_left_out(case):
            continue
        system = [Message("system", case["system"])] if case["system"] else []
        messages = [*system, *map(as_message, case["messages"])]
        listed = json.loads(case["tools"]) if isinstance(case["tools"], str) else case["tools"] or ()
        tools = tuple(tool if "function" in tool else {"type": "function", "function": tool} for tool in listed)
        made = make_renderer(SPECS[name], case["bos_token"], case["eos_token"])
        (row,) = made.render(messages, tools)
        expected = case["expected"] if isinstance(case["expected"][0], list) else [case["expected"]]
        assert "".join(segment.text for segment in row) == "".join(text for pair in expected for text in pair)
        answers = [segment.text for segment in row if segment.trained][-len(expected) :]
        # a newline after the stop token is not trained
        assert answers == [answer.removesuffix("\n") for _, answer in expected]
        compared += 1
    assert compared == num


@pytest.mark.parametrize(("one", "other"), [("llava_next_mistral", "llava_next_video_mistral")])
def test_what_has_no_rows_there_writes_what_its_sibling_writes(make_renderer, one, other):
    rows = [
        make_renderer(SPECS[name], "<s>", "</s>").render([Message("system", "Be"), *TURNS]) for name in (one, other)
    ]
    assert rows[0] == rows[1]


@pytest.mark.parametrize(
    ("name", "trained"),
    [
        ("llava", ["Ho </s>", "He </s>"]),
        ("llava_next", ["Ho</s>", "He</s>"]),
        ("llava_next_mistral", [" Ho</s>", " He</s>"]),
        ("llava_next_yi", ["Ho<|im_end|>", "He<|im_end|>"]),
        ("llava_next_qwen", ["Ho<|im_end|>", "He<|im_end|>"]),
        ("llava_next_llama3", ["Ho<|eot_id|>", "He<|eot_id|>"]),
    ],
)
def test_answers_are_trained_with_their_stop_token_and_follow_their_prompt(make_renderer, name, trained):
    made = make_renderer(SPECS[name], "<s>", "</s>")
    (row,) = made.render(TURNS)
    assert [segment.text for segment in row if segment.trained] == trained
    assert "".join(segment.text for segment in row[:3]) == made.prompt_text(TURNS[:3])
    assert trained[0].endswith(made.stop[0])


@pytest.mark.parametrize("name", sorted(SPECS))
def test_media_are_their_marks(make_renderer, name):
    made = make_renderer(SPECS[name], "<s>", "</s>")
    images = (Media("image", "a.png"), Media("image", "b.png"), Text("Same?"))
    assert made.prompt_text([Message("user", images)]).count("<image>") == 2
    video = [Message("user", (Media("video", "a.mp4"), Text("What?")))]
    if "video" in name:
        assert "<video>What?" in made.prompt_text(video)
    else:
        with pytest.raises(DataError, match="a part of type video has no place"):
            made.prompt_text(video)


@pytest.mark.parametrize("name", ["llava", "llava_next_llama3", "llava_next_mistral", "llava_next_video_mistral"])
def test_tools_are_refused_without_a_dialect(make_renderer, name):
    with pytest.raises(DataError, match="holds tools or calls"):
        make_renderer(SPECS[name]).prompt_text(TURNS[:1], TOOLS)
