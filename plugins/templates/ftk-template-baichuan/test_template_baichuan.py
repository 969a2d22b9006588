"""Reference: the published template's renders of Baichuan2 (golden/renders.jsonl)."""

import ftk_template_baichuan
import pytest
from ftk import DataError, Message, ToolCall

SPECS = {spec.name: spec for spec in ftk_template_baichuan.ftk_chat_templates()}
TURNS = [
    Message("system", " Be "),
    Message("user", "Hi"),
    Message("assistant", "Ho"),
    Message("user", "Ha"),
    Message("assistant", "He"),
]
ASKS = {"baichuan": ("<reserved_102>", "<reserved_103>"), "baichuan2": ("<reserved_106>", "<reserved_107>")}


def test_it_renders_what_the_published_template_renders(check_published):
    # the published one leaves results out without a word; ours refuses them
    assert check_published(SPECS["baichuan2"], "baichuan2", lambda case: "tool_call" in case["case"]) == 30


@pytest.mark.parametrize("name", ASKS)
def test_each_answer_is_trained_with_the_end_token_in_a_row_of_its_own(make_renderer, name):
    user, assistant = ASKS[name]
    made = make_renderer(SPECS[name], "<s>", "</s>")
    first, second = made.render(TURNS)
    assert [one[:2] for one in first] == [(f"Be{user}Hi{assistant}", False), ("Ho</s>", True)]
    assert [one[:2] for one in second] == [(f"Be{user}Hi{assistant}Ho{user}Ha{assistant}", False), ("He</s>", True)]
    assert first[0].text == made.prompt_text(TURNS[:2])
    assert second[0].text == made.prompt_text(TURNS[:4])
    assert made.stop == ("</s>",)


def test_a_default_system_text_stands_at_the_start(make_renderer):
    made = make_renderer(SPECS["baichuan2"], "<s>", "</s>", default_system="Be")
    assert made.prompt_text(TURNS[1:2]) == "Be<reserved_106>Hi<reserved_107>"


def test_calls_and_results_are_refused(make_renderer):
    made = make_renderer(SPECS["baichuan2"], "<s>", "</s>")
    with pytest.raises(DataError, match="leaves out the call of look"):
        made.render([TURNS[1], Message("assistant", tool_calls=(ToolCall("look", {}),))])
    with pytest.raises(DataError, match="a turn of tool has no place"):
        made.prompt_text([TURNS[1], Message("tool", "seen")])
