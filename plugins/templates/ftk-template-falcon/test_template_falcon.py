"""Reference: the published template's renders of Falcon Instruct (golden/renders.jsonl), and LLaMA-Factory's formats of
Falcon-H1 (section 4 of the reference)."""

import ftk_template_falcon
import pytest
from ftk import DataError, Media, Message, ToolCall

FALCON, FALCON_H1 = ftk_template_falcon.ftk_chat_templates()
TURNS = [Message("user", "Hi"), Message("assistant", "Ho"), Message("user", "Ha"), Message("assistant", "He")]


def is_left_out(case):
    """There, calls and results are left out without a word; here they are refused."""
    return case["case"].startswith("tool_call")


def test_it_renders_what_the_published_template_renders(check_published):
    assert check_published(FALCON, "falcon", is_left_out) == 30


def test_each_answer_is_trained_with_the_end_token_in_a_row_of_its_own(make_renderer):
    made = make_renderer(FALCON, None, "<|endoftext|>")
    assert [[segment[:2] for segment in row] for row in made.render(TURNS)] == [
        [("User: Hi\nAssistant:", False), (" Ho<|endoftext|>", True)],
        [("User: Hi\nAssistant: Ho\nUser: Ha\nAssistant:", False), (" He<|endoftext|>", True)],
    ]
    assert made.prompt_text(TURNS[:3]) == "User: Hi\nAssistant: Ho\nUser: Ha\nAssistant:"
    assert made.stop == ("<|endoftext|>", "\nUser:")


def test_a_system_text_leaves_an_empty_line_and_a_warning(make_renderer, caplog):
    made = make_renderer(FALCON, None, "<|endoftext|>")
    assert made.prompt_text([Message("system", "Do"), *TURNS[:1]]) == "\nUser: Hi\nAssistant:"
    assert "leaves the system text out or changes it: 'Do'" in caplog.text
    with pytest.raises(DataError, match="no place for a system text"):
        make_renderer(FALCON, default_system="Be").prompt_text(TURNS[:1])


@pytest.mark.parametrize("message", [Message("tool", "7"), Message("user", (Media("image", "a.png"),))])
def test_what_falcon_has_no_place_for_is_refused(make_renderer, message):
    with pytest.raises(DataError, match="text of questions and answers"):
        make_renderer(FALCON).prompt_text([message])


def test_falcon_refuses_calls(make_renderer):
    with pytest.raises(DataError, match="leaves out the call of look"):
        make_renderer(FALCON, None, "</s>").render(
            [*TURNS[:1], Message("assistant", tool_calls=(ToolCall("look", {}),))]
        )


def test_falcon_h1_is_chatml_after_the_begin_token(make_renderer):
    made = make_renderer(FALCON_H1, "<|begin_of_text|>", "<|end_of_text|>")
    (row,) = made.render([Message("system", "Be"), *TURNS])
    assert row[0].text == (
        "<|begin_of_text|><|im_start|>system\nBe<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert [segment.text for segment in row if segment.trained] == ["Ho<|im_end|>", "He<|im_end|>"]
    assert made.prompt_text([Message("system", "Be"), *TURNS[:3]]) == "".join(segment.text for segment in row[:3])
    assert made.stop == ("<|im_end|>", "<|end_of_text|>")
