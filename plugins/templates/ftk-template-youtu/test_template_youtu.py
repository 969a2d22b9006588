"""Reference: LLaMA-Factory's strings (golden/llamafactory_templates.jsonl)."""

import ftk_template_youtu
import pytest
from ftk import DataError, Media, Message, Text

SPECS = {spec.name: spec for spec in ftk_template_youtu.ftk_chat_templates()}
HISTORY = [
    Message("user", "1+1?"),
    Message("assistant", "2", reasoning="Add."),
    Message("user", "2+2?"),
    Message("assistant", "4", reasoning="Double."),
]


@pytest.fixture
def renderer(make_renderer):
    return lambda name, **options: make_renderer(SPECS[name], "<s>", "<|end_of_text|>", **options)


def trained(rows):
    return [segment.text for row in rows for segment in row if segment.trained]


def is_whole(case):
    """Whether every answer of the case has its thought, as with ``preserve_thinking``."""
    return case["method"] == "encode_multiturn" and not case["method_kwargs"]


@pytest.mark.parametrize(("name", "num"), [("youtu", 31), ("youtu_vl", 14)])
def test_it_writes_what_llama_factory_writes(peer_cases, make_renderer, name, num):
    compared = 0
    for case in peer_cases(name):
        if case["tools"]:  # in LLaMA-Factory's own words for tools, which are not the family's
            continue
        if SPECS[name].thinking and case["case"] == "whitespace":  # newlines after a thought belong to the thought
            continue
        options = {}
        if SPECS[name].thinking:
            options = {"preserve_thinking": is_whole(case), "enable_thinking": case["enable_thinking"]}
        turns = [Message("system", case["system"])] if case["system"] else []
        turns += [Message(one["role"], one["content"]) for one in case["messages"]]
        rows = make_renderer(SPECS[name], case["bos_token"], case["eos_token"], **options).render(turns)
        pairs = [case["expected"]] if isinstance(case["expected"][0], str) else case["expected"]
        assert "".join(segment.text for segment in rows[-1]) == "".join(prompt + answer for prompt, answer in pairs)
        assert trained(rows)[-1] + SPECS[name].assistant_end == pairs[-1][1]
        compared += 1
    assert compared == num


def test_each_row_begins_with_the_prompt_of_its_answer(renderer):
    made = renderer("youtu")
    rows = made.render(HISTORY)
    assert trained(rows) == [
        "<think>\nAdd.\n</think>\n\n2<|end_of_text|>",
        "<think>\nDouble.\n</think>\n\n4<|end_of_text|>",
    ]
    assert [row[0].text for row in rows] == [made.prompt_text(HISTORY[:1]), made.prompt_text(HISTORY[:3])]


def test_without_thinking_the_prompt_holds_the_empty_thought(renderer):
    rows = renderer("youtu", enable_thinking=False).render(HISTORY)
    assert trained(rows) == ["2<|end_of_text|>", "4<|end_of_text|>"]
    assert rows[1][0].text.endswith("<|Assistant|><think>\n\n</think>\n\n")


def test_youtu_writes_a_result_right_behind_the_call(renderer):
    turns = [*HISTORY[:1], Message("assistant", "Call."), Message("tool", "seen")]
    text = renderer("youtu", enable_thinking=None).prompt_text(turns)
    assert text.endswith("Call.<|end_of_text|><tool_response>\nseen\n</tool_response><|Assistant|>")


def test_youtu_vl_is_one_row_that_begins_with_each_prompt(renderer):
    made = renderer("youtu_vl")
    turns = [Message("user", "a"), Message("assistant", "b"), Message("tool", "c"), Message("assistant", "d")]
    (row,) = made.render(turns)
    assert trained([row]) == ["b<|end_of_text|>", "d<|end_of_text|>"]
    assert "".join(segment.text for segment in row[:3]) == made.prompt_text(turns[:3])
    assert row[-1][:2] == ("\n", False)


def test_youtu_vl_writes_media_as_the_spec_says(renderer):
    for kind, shown in SPECS["youtu_vl"].media.items():
        text = renderer("youtu_vl").prompt_text([Message("user", (Media(kind, "f"), Text("?")))])
        assert f"<|begin_of_text|>user\n{shown}?<|end_of_text|>\n" in text
    with pytest.raises(DataError, match="part of type image"):
        renderer("youtu").prompt_text([Message("user", (Media("image", "a.png"),))])


@pytest.mark.parametrize("name", SPECS)
def test_answers_stop_at_the_end_of_text_and_tools_are_told_of_in_plain_words(renderer, name):
    assert renderer(name).stop == ("<|end_of_text|>",)
    text = renderer(name).prompt_text(HISTORY[:1], ({"type": "function", "function": {"name": "look"}},))
    assert "You have access to the following tools:\n> Tool Name: look\n" in text
