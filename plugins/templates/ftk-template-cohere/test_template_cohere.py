"""Reference: the published template's renders of Command R (golden/renders.jsonl)."""

import ftk_template_cohere
import pytest
from ftk import DataError, Message

(SPEC,) = ftk_template_cohere.ftk_chat_templates()
TURNS = [
    Message("system", "Be"),
    Message("user", " Hi "),
    Message("assistant", " Ho "),
    Message("user", "Ha"),
    Message("assistant", "He"),
]


def test_it_renders_what_the_published_template_renders(check_published):
    assert check_published(SPEC, "cohere") == 30


def test_answers_are_trained_with_their_stop_token_and_follow_their_prompt(make_renderer):
    made = make_renderer(SPEC, "<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>")
    (row,) = made.render(TURNS)
    assert row[0].text == (
        "<BOS_TOKEN><|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>Be<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>Hi<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"
    )
    assert [segment.text for segment in row if segment.trained] == [
        "Ho<|END_OF_TURN_TOKEN|>",
        "He<|END_OF_TURN_TOKEN|>",
    ]
    assert "".join(segment.text for segment in row[:3]) == made.prompt_text(TURNS[:4])
    assert made.stop == ("<|END_OF_TURN_TOKEN|>",)


def test_tools_are_refused(make_renderer):
    with pytest.raises(DataError, match="holds tools or calls"):
        make_renderer(SPEC).prompt_text(TURNS[:2], ({"function": {"name": "look"}},))
