"""Reference: the published ChatML template's renders (golden/renders.jsonl, clock frozen, transformers' own Jinja)."""

import json
from pathlib import Path

import ftk_template_chatml
import pytest
from ftk import DataError, Message, ToolCall
from ftk_data import TemplateOptions
from ftk_data.environment import render_marked
from ftk_data.rendering import declared

GOLDEN = Path(__file__).parents[4] / "shared" / "golden" / "renders.jsonl"
(SPEC,) = ftk_template_chatml.ftk_chat_templates()


class NoTokenizer:
    special_tokens_map = {"eos_token": "<|im_end|>"}  # noqa: RUF012 (as transformers has it)

    def get_added_vocab(self):
        return {"<|im_end|>": 2}


RENDERER = declared(SPEC, NoTokenizer(), TemplateOptions())


def test_it_renders_what_the_published_template_renders():
    if not GOLDEN.exists():
        pytest.skip(f"{GOLDEN} is not there")
    cases = [case for line in GOLDEN.open() if (case := json.loads(line))["family"] == "chatml"]
    plain = [case for case in cases if not case["tools"]]  # the published one leaves tools out without a word
    assert len(plain) == 26
    for case in plain:
        for source in (RENDERER.source, RENDERER.jinja()):
            variables = {"add_generation_prompt": case["add_generation_prompt"], "eos_token": "<|im_end|>"}
            assert render_marked(source, case["messages"], **variables)[0] == case["rendered"], case["case"]


def test_answers_are_trained_up_to_the_stop_token_and_no_further():
    turns = [Message("user", "Hi"), Message("assistant", "Ho"), Message("user", "Ha"), Message("assistant", "He")]
    ((first, *rest),) = RENDERER.render(turns)
    assert first[:2] == ("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", False)
    assert rest[0][:2] == ("Ho<|im_end|>", True)
    assert [one[:2] for one in rest[-2:]] == [("He<|im_end|>", True), ("\n", False)]


def test_the_prompt_is_what_comes_before_the_answer():
    turns = [Message("system", "Be"), Message("user", "Hi"), Message("assistant", "Ho")]
    assert RENDERER.prompt_text(turns[:2]) == RENDERER.render(turns)[0][0].text


def test_a_turn_that_is_not_trained_belongs_to_the_prompt():
    turns = [
        Message("user", "a"),
        Message("assistant", "b", trained=False),
        Message("user", "c"),
        Message("assistant", "d"),
    ]
    (row,) = RENDERER.render(turns)
    assert [segment.trained for segment in row] == [False, True, False]
    assert "b<|im_end|>" in row[0].text


def test_calls_and_results_are_written():
    turns = [Message("user", "?"), Message("assistant", tool_calls=(ToolCall("add", {"a": 1}),)), Message("tool", "2")]
    text = RENDERER.prompt_text(turns, ({"type": "function", "function": {"name": "add"}},))
    assert '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call><|im_end|>\n<|im_start|>tool\n2' in text
    assert text.startswith("<|im_start|>system\n# Tools")


def test_reasoning_is_written_into_the_answer():
    turns = [Message("user", "?"), Message("assistant", "2", reasoning="One and one.")]
    assert RENDERER.render(turns)[0][1][:2] == ("<think>\nOne and one.\n</think>\n\n2<|im_end|>", True)


def test_default_system_stands_in_for_a_missing_one_and_is_saved():
    renderer = declared(SPEC, NoTokenizer(), TemplateOptions(default_system='Say "yes"\\'))
    expected = '<|im_start|>system\nSay "yes"\\<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n'
    assert renderer.prompt_text([Message("user", "Hi")]) == expected
    saved, _ = render_marked(renderer.jinja(), [{"role": "user", "content": "Hi"}], add_generation_prompt=True)
    assert saved == expected
    given = renderer.prompt_text([Message("system", "No"), Message("user", "Hi")])
    assert "yes" not in given


def test_a_role_without_a_place_is_refused():
    with pytest.raises(DataError, match="critic"):
        RENDERER.prompt_text([Message("critic", "x")])
