"""Reference: the published templates' renders of Llama 2, 3 and 3.1 (golden/renders.jsonl)."""

import json
from pathlib import Path

import ftk_template_llama
import pytest
from ftk import DataError, Message, ToolCall
from ftk_data import TemplateOptions
from ftk_data.environment import render_marked
from ftk_data.rendering import declared

GOLDEN = Path(__file__).parents[4] / "shared" / "golden" / "renders.jsonl"
SPECS = {spec.name: spec for spec in ftk_template_llama.ftk_chat_templates()}
TOOLS = ({"type": "function", "function": {"name": "look"}},)


class NoTokenizer:
    def __init__(self, **tokens):
        self.special_tokens_map = tokens

    def get_added_vocab(self):
        return {}


def renderer(name):
    ends = {"llama2": ("<s>", "</s>")}
    bos, eos = ends.get(name, ("<|begin_of_text|>", "<|eot_id|>"))
    return declared(SPECS[name], NoTokenizer(bos_token=bos, eos_token=eos), TemplateOptions())


def is_compared(case, family):
    if "rendered" not in case:  # the published one refuses it
        return False
    if family == "llama3":  # it leaves tools out without a word
        return not case["tools"]
    return family != "llama3.1" or "[str]" not in case["case"]  # it encodes string arguments twice


@pytest.mark.parametrize(
    ("family", "name", "num"),
    [("llama2-default", "llama2", 30), ("llama3", "llama3", 26), ("llama3.1", "llama3.1", 34)],
)
def test_it_renders_what_the_published_template_renders(family, name, num):
    if not GOLDEN.exists():
        pytest.skip(f"{GOLDEN} is not there")
    made = renderer(name)
    cases = [case for case in map(json.loads, GOLDEN.open()) if case["family"] == family and is_compared(case, family)]
    assert len(cases) == num
    for case in cases:
        variables = {"add_generation_prompt": case["add_generation_prompt"], "tools": case["tools"], **made.tokens}
        for source in (made.source, made.jinja()):
            assert render_marked(source, case["messages"], **variables)[0] == case["rendered"], case["case"]


def test_llama2_has_its_system_text_in_the_first_question_and_trains_the_end_token():
    turns = [Message("system", "Be"), Message("user", "Hi"), Message("assistant", "Ho"), Message("user", "Ha")]
    row = renderer("llama2").render(turns)[0]
    assert [one[:2] for one in row[:2]] == [
        ("<s>[INST] <<SYS>>\nBe\n<</SYS>>\n\nHi [/INST]", False),
        (" Ho </s>", True),
    ]


def test_llama3_trains_the_answer_with_its_stop_token():
    row = renderer("llama3").render([Message("user", "Hi"), Message("assistant", " Ho ")])[0]
    assert row[1][:2] == ("Ho<|eot_id|>", True)
    assert len(row) == 2


def test_llama3_tells_of_tools_in_the_first_question_and_of_results_as_json():
    turns = [
        Message("user", "Look"),
        Message("assistant", tool_calls=(ToolCall("look", {"at": 1}),)),
        Message("tool", "seen"),
    ]
    text = renderer("llama3").prompt_text(turns, TOOLS)
    assert text.count('"name": "look"') == 2
    assert '{"name": "look", "parameters": {"at": 1}}<|eot_id|>' in text
    assert '<|start_header_id|>ipython<|end_header_id|>\n\n"seen"<|eot_id|>' in text


def test_two_calls_in_a_turn_are_refused():
    calls = (ToolCall("look", {}), ToolCall("look", {}))
    with pytest.raises(DataError, match="one call a turn"):
        renderer("llama3").render([Message("user", "?"), Message("assistant", tool_calls=calls)], TOOLS)


def test_llama2_refuses_tools():
    with pytest.raises(DataError, match="holds tools or calls"):
        renderer("llama2").prompt_text([Message("user", "?")], TOOLS)
