"""References: the published ChatML template's renders (golden/renders.jsonl, clock frozen, transformers' own Jinja) and
LLaMA-Factory's strings of chatml_de (golden/llamafactory_templates.jsonl)."""

import ftk_template_chatml
import pytest
from ftk import DataError, Message, ToolCall
from ftk_data.environment import render_marked

SPECS = {spec.name: spec for spec in ftk_template_chatml.ftk_chat_templates()}


@pytest.fixture
def renderer(make_renderer):
    return make_renderer(SPECS["chatml"], None, "<|im_end|>")


def test_it_renders_what_the_published_template_renders(check_published):
    # the published one leaves tools out without a word
    assert check_published(SPECS["chatml"], "chatml", lambda case: bool(case["tools"])) == 26


def test_chatml_de_writes_what_llama_factory_writes(peer_cases, make_renderer):
    """Its words for tools are compared for all templates in tests/contract/test_peer_strings.py."""
    compared = 0
    for case in peer_cases("chatml_de"):
        if case["tools"]:
            continue
        turns = [Message("system", case["system"])] if case["system"] else []
        turns += [Message(one["role"], one["content"]) for one in case["messages"]]
        (row,) = make_renderer(SPECS["chatml_de"], case["bos_token"], case["eos_token"]).render(turns)
        pairs = [case["expected"]] if isinstance(case["expected"][0], str) else case["expected"]
        assert "".join(segment.text for segment in row) == "".join(prompt + answer for prompt, answer in pairs)
        assert row[-2].text + "\n" == pairs[-1][1]
        compared += 1
    assert compared == 14


def test_answers_are_trained_up_to_the_stop_token_and_no_further(renderer):
    turns = [Message("user", "Hi"), Message("assistant", "Ho"), Message("user", "Ha"), Message("assistant", "He")]
    ((first, *rest),) = renderer.render(turns)
    assert first[:2] == ("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", False)
    assert rest[0][:2] == ("Ho<|im_end|>", True)
    assert [one[:2] for one in rest[-2:]] == [("He<|im_end|>", True), ("\n", False)]


def test_an_answer_ends_where_a_turn_ends_or_begins(renderer):
    assert renderer.stop == ("<|im_end|>", "<|im_start|>")


def test_the_prompt_is_what_comes_before_the_answer(renderer):
    turns = [Message("system", "Be"), Message("user", "Hi"), Message("assistant", "Ho")]
    assert renderer.prompt_text(turns[:2]) == renderer.render(turns)[0][0].text


def test_a_turn_that_is_not_trained_belongs_to_the_prompt(renderer):
    turns = [
        Message("user", "a"),
        Message("assistant", "b", trained=False),
        Message("user", "c"),
        Message("assistant", "d"),
    ]
    (row,) = renderer.render(turns)
    assert [segment.trained for segment in row] == [False, True, False]
    assert "b<|im_end|>" in row[0].text


def test_calls_and_results_are_written(renderer):
    turns = [Message("user", "?"), Message("assistant", tool_calls=(ToolCall("add", {"a": 1}),)), Message("tool", "2")]
    text = renderer.prompt_text(turns, ({"type": "function", "function": {"name": "add"}},))
    assert '<|im_start|>assistant\nAction: add\nAction Input: {"a": 1}<|im_end|>\n<|im_start|>tool\n2' in text
    assert text.startswith("<|im_start|>system\nYou have access to the following tools:\n> Tool Name: add\n")


def test_reasoning_is_written_into_the_answer(renderer):
    turns = [Message("user", "?"), Message("assistant", "2", reasoning="One and one.")]
    assert renderer.render(turns)[0][1][:2] == ("<think>\nOne and one.\n</think>\n\n2<|im_end|>", True)


def test_default_system_stands_in_for_a_missing_one_and_is_saved(make_renderer):
    made = make_renderer(SPECS["chatml"], None, "<|im_end|>", default_system='Say "yes"\\')
    expected = '<|im_start|>system\nSay "yes"\\<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n'
    assert made.prompt_text([Message("user", "Hi")]) == expected
    saved, _ = render_marked(made.jinja(), [{"role": "user", "content": "Hi"}], add_generation_prompt=True)
    assert saved == expected
    given = made.prompt_text([Message("system", "No"), Message("user", "Hi")])
    assert "yes" not in given


def test_a_role_without_a_place_is_refused(renderer):
    with pytest.raises(DataError, match="critic"):
        renderer.prompt_text([Message("critic", "x")])
