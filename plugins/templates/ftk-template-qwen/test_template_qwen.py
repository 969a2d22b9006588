"""Reference: the published templates' renders of Qwen2.5, Qwen3 and Qwen3-2507 (golden/renders.jsonl)."""

import json
from pathlib import Path

import ftk_template_qwen
import pytest
from ftk import Message, ToolCall
from ftk_data import TemplateOptions
from ftk_data.environment import render_marked
from ftk_data.rendering import declared

GOLDEN = Path(__file__).parents[4] / "shared" / "golden" / "renders.jsonl"
SPECS = {spec.name: spec for spec in ftk_template_qwen.ftk_chat_templates()}
FAMILIES = {"qwen2.5": "qwen", "qwen3": "qwen3", "qwen3-2507": "qwen3_nothink"}
HISTORY = [
    Message("user", "1+1?"),
    Message("assistant", "2", reasoning="Add."),
    Message("user", "2+2?"),
    Message("assistant", "4", reasoning="Double."),
]


class NoTokenizer:
    special_tokens_map = {"eos_token": "<|im_end|>"}  # noqa: RUF012 (as transformers has it)

    def get_added_vocab(self):
        return {"<|im_end|>": 2}


def renderer(name, **options):
    given = {"thinking": options["enable_thinking"]} if "enable_thinking" in options else {}
    return declared(SPECS[name], NoTokenizer(), TemplateOptions(**options), **given)


@pytest.mark.parametrize(("family", "name"), FAMILIES.items())
def test_it_renders_what_the_published_template_renders(family, name):
    if not GOLDEN.exists():
        pytest.skip(f"{GOLDEN} is not there")
    made = renderer(name)
    compared = 0
    for case in map(json.loads, GOLDEN.open()):
        # Qwen2.5 writes arguments that come as a string with quotes around them, twice encoded; ftk's never do
        if case["family"] != family or (family == "qwen2.5" and "[str]" in case["case"]):
            continue
        variables = {"add_generation_prompt": case["add_generation_prompt"], "tools": case["tools"]}
        for source in (made.source, made.jinja()):
            text, _ = render_marked(source, case["messages"], **variables, **case["template_kwargs"])
            assert text == case["rendered"], case["case"]
        compared += 1
    assert compared == {"qwen2.5": 36, "qwen3": 46, "qwen3-2507": 42}[family]


def test_history_without_its_reasoning_gives_each_answer_a_row():
    first, second = renderer("qwen3").render(HISTORY)
    assert first[1][:2] == ("<think>\nAdd.\n</think>\n\n2<|im_end|>", True)
    assert "Add." not in "".join(segment.text for segment in second)
    assert [segment.text for segment in second if segment.trained] == ["<think>\nDouble.\n</think>\n\n4<|im_end|>"]


def test_each_row_begins_with_the_prompt_of_its_answer():
    made = renderer("qwen3")
    rows = made.render(HISTORY)
    assert [row[0].text for row in rows] == [made.prompt_text(HISTORY[:1]), made.prompt_text(HISTORY[:3])]


def test_preserve_thinking_keeps_one_row():
    made = renderer("qwen3", preserve_thinking=True)
    (row,) = made.render(HISTORY)
    assert [segment.text for segment in row if segment.trained] == [
        "<think>\nAdd.\n</think>\n\n2<|im_end|>",
        "<think>\nDouble.\n</think>\n\n4<|im_end|>",
    ]
    assert made.prompt_text(HISTORY[:3]) == "".join(segment.text for segment in row[:3])


def test_without_thinking_the_prompt_holds_the_empty_thought_and_reasoning_is_left_out():
    made = renderer("qwen3", enable_thinking=False)
    rows = made.render(HISTORY)
    assert [segment.text for row in rows for segment in row if segment.trained] == ["2<|im_end|>", "4<|im_end|>"]
    assert rows[1][0].text == made.prompt_text(HISTORY[:3])
    assert rows[1][0].text.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")


def test_thinking_as_each_conversation_has_it():
    made = renderer("qwen3", enable_thinking=None)
    assert made.render(HISTORY[:2])[0][1].text.startswith("<think>\nAdd.")
    plain = made.render([Message("user", "1+1?"), Message("assistant", "2")])
    assert plain[0][0].text.endswith("<think>\n\n</think>\n\n")
    assert plain[0][1].text == "2<|im_end|>"


def test_reasoning_inside_the_content_is_the_same_as_beside_it():
    inside = [Message("user", "1+1?"), Message("assistant", "<think>\nAdd.\n</think>\n\n2")]
    assert renderer("qwen3").render(inside) == renderer("qwen3").render(HISTORY[:2])


def test_steps_after_one_question_share_a_row_when_they_reason():
    turns = [
        Message("user", "?"),
        Message("assistant", reasoning="Look.", tool_calls=(ToolCall("look", {"at": "it"}),)),
        Message("tool", "seen"),
        Message("assistant", "Done", reasoning="Saw."),
    ]
    (row,) = renderer("qwen3").render(turns)
    assert [segment.trained for segment in row] == [False, True, False, True, False]
    assert row[1].text.endswith('{"name": "look", "arguments": {"at": "it"}}\n</tool_call><|im_end|>')
