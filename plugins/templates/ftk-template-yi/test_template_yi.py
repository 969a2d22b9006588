"""Reference: the published template's renders of Yi (golden/renders.jsonl) and LLaMA-Factory's rows of Yi-VL
(golden/llamafactory_templates.jsonl)."""

import ftk_template_yi
import pytest
from ftk import DataError, Media, Message, Text

SPECS = {spec.name: spec for spec in ftk_template_yi.ftk_chat_templates()}
TURNS = [Message("user", "Hi"), Message("assistant", "Ho"), Message("user", "Ha"), Message("assistant", "He")]


def test_it_renders_what_the_published_template_renders(check_published):
    assert check_published(SPECS["yi"], "yi") == 42


def test_yi_vl_writes_the_rows_of_llamafactory_and_ends_each_answer_at_its_stop_word(peer_cases, make_renderer):
    compared = 0
    for case in peer_cases("yi_vl"):
        if case["tools"]:  # their dialect, default, is another plugin's
            continue
        system = [Message("system", case["system"])] if case["system"] else []
        messages = [*system, *(Message(one["role"], one["content"]) for one in case["messages"])]
        (row,) = make_renderer(SPECS["yi_vl"], case["bos_token"], case["eos_token"]).render(messages)
        expected = case["expected"] if isinstance(case["expected"][0], list) else [case["expected"]]
        # at the end of a row LLaMA-Factory has the tokenizer's end token, where this one has the stop word
        written = "".join(text for pair in expected for text in pair)
        assert "".join(segment.text for segment in row) == written + "###"
        answers = [segment.text for segment in row if segment.trained][-len(expected) :]
        assert answers == [answer + "###" for _, answer in expected]
        compared += 1
    assert compared == 14


@pytest.mark.parametrize(("name", "end", "stop"), [("yi", "<|im_end|>", "<|im_end|>"), ("yi_vl", "\n###", "###")])
def test_answers_are_trained_with_their_stop_word_and_follow_their_prompt(make_renderer, name, end, stop):
    made = make_renderer(SPECS[name], "<s>", "</s>", default_system="Be")
    (row,) = made.render(TURNS)
    assert [segment.text for segment in row if segment.trained] == [f"Ho{end}", f"He{end}"]
    assert row[0].text == made.prompt_text(TURNS[:1])
    assert "".join(segment.text for segment in row[:3]) == made.prompt_text(TURNS[:3])
    assert made.stop[0] == stop


def test_yi_vl_shows_an_image_and_begins_with_its_own_system_text(make_renderer):
    content = (Media("image", "x.png"), Text("\nWhat?"))
    text = make_renderer(SPECS["yi_vl"]).prompt_text([Message("user", content)])
    assert text.startswith("This is a chat between an inquisitive human and an AI assistant.")
    assert text.endswith("\n\n### Human: <image>\nWhat?\n### Assistant:")


def test_yi_refuses_tools(make_renderer):
    with pytest.raises(DataError, match="holds tools or calls"):
        make_renderer(SPECS["yi"]).prompt_text(TURNS[:1], ({"function": {"name": "look"}},))
