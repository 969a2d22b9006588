"""References: the published templates' renders of Llama 2, 3, 3.1 and 4 (golden/renders.jsonl), LLaMA-Factory's strings
of llama2_zh (golden/llamafactory_templates.jsonl) and of calls (golden/llamafactory_cases.jsonl)."""

import json
from pathlib import Path

import ftk_template_llama
import pytest
from ftk import DataError, Media, Message, Text, ToolCall
from ftk_data.tools import ToolFormat, read_answer, write_answer
from ftk_template_llama.tools import LLAMA3, LLAMA4
from hypothesis import given
from hypothesis import strategies as st

GOLDEN = Path(__file__).parents[4] / "shared" / "golden"
SPECS = {spec.name: spec for spec in ftk_template_llama.ftk_chat_templates()}
TOOLS = ({"type": "function", "function": {"name": "look"}},)
LOOK = ToolCall("look", {"at": 1})
CALLING = [Message("user", "Look"), Message("assistant", tool_calls=(LOOK,)), Message("tool", "seen")]
ENDS = {"llama2": ("<s>", "</s>"), "llama2_zh": ("<s>", "</s>"), "llama4": ("<|begin_of_text|>", "<|eot|>")}


@pytest.fixture
def renderer(make_renderer):
    return lambda name: make_renderer(SPECS[name], *ENDS.get(name, ("<|begin_of_text|>", "<|eot_id|>")))


def leaves_tools_out(case):
    """Llama 3 leaves tools and calls out without a word."""
    return bool(case["tools"])


def leaves_videos_out(case):
    """Llama 4 leaves videos out without a word."""
    return "video" in case["case"]


@pytest.mark.parametrize(
    ("family", "name", "skip", "num"),
    [
        ("llama2-default", "llama2", lambda case: False, 30),
        ("llama3", "llama3", leaves_tools_out, 26),
        ("llama3", "mllama", leaves_tools_out, 26),
        ("llama3.1", "llama3.1", leaves_videos_out, 38),
        ("llama4", "llama4", leaves_videos_out, 48),
    ],
)
def test_it_renders_what_the_published_template_renders(check_published, family, name, skip, num):
    assert check_published(SPECS[name], family, skip) == num


def test_llama2_zh_writes_what_llama_factory_writes(peer_cases, renderer):
    made = renderer("llama2_zh")
    compared = 0
    for case in peer_cases("llama2_zh"):
        if case["tools"]:  # in LLaMA-Factory's own words for tools, which are not the family's
            continue
        turns = [Message("system", case["system"])] if case["system"] else []
        turns += [Message(one["role"], one["content"]) for one in case["messages"]]
        (row,) = made.render(turns)
        pairs = [case["expected"]] if isinstance(case["expected"][0], str) else case["expected"]
        assert "".join(segment.text for segment in row) == "".join(prompt + answer for prompt, answer in pairs)
        assert row[-1][:2] == (pairs[-1][1], True)
        compared += 1
    assert compared == 14


@pytest.mark.parametrize("name", SPECS)
def test_a_conversation_is_one_row_that_begins_with_each_prompt(renderer, name):
    made = renderer(name)
    turns = [Message("user", "a"), Message("assistant", "b"), Message("user", "c"), Message("assistant", "d")]
    (row,) = made.render(turns)
    assert [segment.trained for segment in row] == [False, True, False, True]
    assert row[0].text == made.prompt_text(turns[:1])
    assert "".join(segment.text for segment in row[:3]) == made.prompt_text(turns[:3])
    assert row[3].text.strip() == f"d{' ' if name == 'llama2' else ''}{made.stop[0]}"


def test_stop_words_are_those_that_the_families_end_with(renderer):
    assert renderer("llama3").stop == renderer("mllama").stop == ("<|eot_id|>", "<|eom_id|>")
    assert renderer("llama4").stop == ("<|eot|>", "<|eom|>")
    assert renderer("llama2").stop == renderer("llama2_zh").stop == ("</s>",)


def test_llama2_has_its_system_text_in_the_first_question_and_trains_the_end_token(renderer):
    turns = [Message("system", "Be"), Message("user", "Hi"), Message("assistant", "Ho"), Message("user", "Ha")]
    row = renderer("llama2").render(turns)[0]
    assert [one[:2] for one in row[:2]] == [
        ("<s>[INST] <<SYS>>\nBe\n<</SYS>>\n\nHi [/INST]", False),
        (" Ho </s>", True),
    ]


def test_llama3_trains_the_answer_with_its_stop_token(renderer):
    row = renderer("llama3").render([Message("user", "Hi"), Message("assistant", " Ho ")])[0]
    assert row[1][:2] == ("Ho<|eot_id|>", True)
    assert len(row) == 2


def test_llama3_tells_of_tools_in_the_first_question_and_of_results_as_json(renderer):
    text = renderer("llama3").prompt_text(CALLING, TOOLS)
    assert text.count('"name": "look"') == 2
    assert '{"name": "look", "parameters": {"at": 1}}<|eot_id|>' in text
    assert '<|start_header_id|>ipython<|end_header_id|>\n\n"seen"<|eot_id|>' in text


def test_llama4_trains_its_calls_as_its_dialect_writes_them(renderer):
    turns = [CALLING[0], Message("assistant", "Two.", tool_calls=(LOOK, LOOK))]
    row = renderer("llama4").render(turns, TOOLS)[0]
    assert row[1][:2] == (write_answer(LLAMA4, "Two.", (LOOK, LOOK)) + "<|eot|>", True)
    with pytest.raises(DataError, match="marks around the text"):
        renderer("llama4").render([CALLING[0], Message("assistant", "<|python_end|>", tool_calls=(LOOK,))])
    with pytest.raises(DataError, match="need a question"):
        renderer("llama4").prompt_text([Message("assistant", "Hi")], TOOLS)


@pytest.mark.parametrize("name", ["mllama", "llama4"])
def test_an_image_is_written_as_the_spec_says_and_a_video_is_refused(renderer, name):
    text = renderer(name).prompt_text([Message("user", (Media("image", "a.png"), Text("What?")))])
    assert "<|image|>What?<|eot" in text
    with pytest.raises(DataError, match="part of type video"):
        renderer(name).prompt_text([Message("user", (Media("video", "a.mp4"),))])


@pytest.mark.parametrize(
    ("turn", "reason"),
    [
        (Message("assistant", tool_calls=(LOOK, LOOK)), "one call a turn"),
        (Message("assistant", "So:", tool_calls=(LOOK,)), "says nothing beside a call, found So:"),
    ],
)
def test_what_llama3_cannot_call_is_refused(renderer, turn, reason):
    with pytest.raises(DataError, match=reason):
        renderer("llama3").render([Message("user", "?"), turn], TOOLS)


def test_llama2_refuses_tools(renderer):
    with pytest.raises(DataError, match="holds tools or calls"):
        renderer("llama2").prompt_text([Message("user", "?")], TOOLS)


def test_llama2_writes_a_result_where_a_question_stands(renderer):
    assert renderer("llama2").prompt_text(CALLING[::2]) == "<s>[INST] Look [/INST]<s>[INST] seen [/INST]"


def test_calls_are_written_as_llama_factory_writes_them():
    if not GOLDEN.exists():
        pytest.skip(f"{GOLDEN} is not there")
    compared = 0
    for case in map(json.loads, (GOLDEN / "llamafactory_cases.jsonl").open()):
        if case.get("tool_format") != "llama3" or case["kind"] == "tool_formatter":
            continue  # LLaMA-Factory tells of tools in the system turn, and of today's date
        if case["kind"] == "tool_extractor":
            assert read_answer(LLAMA3, case["input"]) == (case["expected"], ())
        elif case["input"][0] == "{":  # the published template refuses two calls, and drops a thought before one
            assert write_answer(LLAMA3, "", [ToolCall(**json.loads(case["input"]))]) == case["expected"][0]
        else:
            continue
        compared += 1
    assert compared == 4


MARKS = st.sampled_from(["<|python_end|>", "<|python_start|>", '"}', '{"name": "f", "parameters": {}}', ";", "\n"])
TEXT = st.lists(MARKS | st.text(max_size=8), max_size=4).map("".join)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
CALL = st.builds(ToolCall, TEXT, st.dictionaries(TEXT, VALUES, max_size=3))


@given(CALL)
def test_a_llama3_call_is_read_as_it_was_written(call):
    assert read_answer(LLAMA3, write_answer(LLAMA3, "", [call])) == ("", (call,))


@given(TEXT, st.lists(CALL, min_size=1, max_size=3).map(tuple))
def test_llama4_calls_are_read_as_they_were_written_or_refused(content, calls):
    try:
        text = write_answer(LLAMA4, content, calls)
    except DataError:
        assert "<|python_" in content
    else:
        assert read_answer(LLAMA4, text) == (content, calls)


@pytest.mark.parametrize("form", [LLAMA3, LLAMA4], ids=lambda form: form.name)
def test_an_answer_that_only_looks_like_a_call_has_none(form: ToolFormat):
    for text in ('{"name": "f"}', '{"name": "f", "parameters": {}} or so', '{"name": 1, "parameters": {}}', "[1]"):
        assert read_answer(form, text) == (text, ())
