"""Reference: LLaMA-Factory's strings (golden/llamafactory_templates.jsonl)."""

import ftk_template_dots
import pytest
from ftk import DataError, Media, Message, Text

(SPEC,) = ftk_template_dots.ftk_chat_templates()
TURNS = [Message("user", "a"), Message("assistant", "b"), Message("tool", "c"), Message("assistant", "d")]


@pytest.fixture
def renderer(make_renderer):
    return make_renderer(SPEC, None, "<|endoftext|>")


def test_it_writes_what_llama_factory_writes(peer_cases, make_renderer):
    compared = 0
    for case in peer_cases("dots_ocr"):
        if case["tools"]:  # in LLaMA-Factory's own words for tools, which are not the family's
            continue
        turns = [Message("system", case["system"])] if case["system"] else []
        turns += [Message(one["role"], one["content"]) for one in case["messages"]]
        (row,) = make_renderer(SPEC, case["bos_token"], case["eos_token"]).render(turns)
        pairs = [case["expected"]] if isinstance(case["expected"][0], str) else case["expected"]
        assert "".join(segment.text for segment in row) == "".join(prompt + answer for prompt, answer in pairs)
        assert row[-1][:2] == (pairs[-1][1], True)
        compared += 1
    assert compared == 14


def test_a_conversation_is_one_row_that_begins_with_each_prompt(renderer):
    (row,) = renderer.render(TURNS)
    assert [segment.text for segment in row if segment.trained] == ["b<|endofassistant|>", "d<|endofassistant|>"]
    assert row[2].text == "<|user|>c<|endofuser|><|assistant|>"
    assert "".join(segment.text for segment in row[:3]) == renderer.prompt_text(TURNS[:3])


def test_an_answer_ends_with_its_own_token_before_the_tokenizers(renderer):
    assert renderer.stop == ("<|endofassistant|>", "<|endoftext|>")


def test_media_are_written_as_the_spec_says_and_a_sound_is_refused(renderer):
    for kind, shown in SPEC.media.items():
        text = renderer.prompt_text([Message("user", (Media(kind, "f"), Text("Read.")))])
        assert text == f"<|user|>{shown}Read.<|endofuser|><|assistant|>"
    with pytest.raises(DataError, match="part of type audio"):
        renderer.prompt_text([Message("user", (Media("audio", "a.wav"),))])


def test_tools_are_told_of_in_plain_words(renderer):
    text = renderer.prompt_text(TURNS[:1], ({"type": "function", "function": {"name": "look"}},))
    assert text.startswith("<|system|>You have access to the following tools:\n> Tool Name: look\n")
