"""References: the published MiniMax-M1 template's renders (golden/renders.jsonl), LLaMA-Factory's strings for tools and
calls (golden/llamafactory_cases.jsonl), and MiniMax-M2's published template, written out by hand."""

import json
from pathlib import Path

import ftk_template_minimax
import pytest
from ftk import DataError, Media, Message, ToolCall
from ftk_data.environment import compiled
from ftk_data.tools import read_answer, write_answer
from ftk_template_minimax.tools import MINIMAX1, MINIMAX2
from hypothesis import given
from hypothesis import strategies as st

GOLDEN = Path(__file__).parents[4] / "shared" / "golden"
SPECS = {spec.name: spec for spec in ftk_template_minimax.ftk_chat_templates()}
FORMS = {form.name: form for form in ftk_template_minimax.ftk_tool_formats()}
TOOLS = ({"type": "function", "function": {"name": "look"}},)
HISTORY = [
    Message("user", "1+1?"),
    Message("assistant", "2", reasoning="Add."),
    Message("user", "2+2?"),
    Message("assistant", "4", reasoning="Double."),
]
STEPS = [
    Message("user", "?"),
    Message("assistant", "So:", reasoning="Look.", tool_calls=(ToolCall("look", {"at": "it", "num": 2}),)),
    Message("tool", "seen"),
    Message("tool", "heard"),
    Message("assistant", "Done", reasoning="Saw."),
]


@pytest.fixture
def renderer(make_renderer):
    return lambda name, **options: make_renderer(SPECS[name], None, SPECS[name].stop[0], **options)


def trained(rows):
    return [segment.text for row in rows for segment in row if segment.trained]


def test_it_renders_what_the_published_template_renders(check_published):
    assert check_published(SPECS["minimax1"], "minimax-m1", lambda case: False) == 42


def test_minimax1_is_one_row_that_begins_with_each_prompt(renderer):
    made = renderer("minimax1")
    turns = [Message("user", "a"), Message("assistant", "b"), Message("user", "c"), Message("assistant", "d")]
    (row,) = made.render(turns)
    assert trained([row]) == ["b<end_of_sentence>", "d<end_of_sentence>"]
    assert "".join(segment.text for segment in row[:3]) == made.prompt_text(turns[:3])
    assert row[-1][:2] == ("\n", False)


def test_minimax1_keeps_the_text_before_a_call_and_writes_calls_as_its_dialect_does(renderer):
    turns = [Message("user", "?"), Message("assistant", "So:", tool_calls=STEPS[1].tool_calls)]
    (row,) = renderer("minimax1").render(turns, TOOLS)
    assert row[1].text == write_answer(MINIMAX1, "So:", STEPS[1].tool_calls) + "<end_of_sentence>"
    assert row[1].text.startswith('So:\n<tool_calls>\n{"name": "look"')


def test_minimax2_is_written_as_published(renderer):
    made = renderer("minimax2")
    expected = (
        "]~!b[]~b]system\nBe[e~[\n]~b]user\n?[e~[\n]~b]ai\n<think>\nLook.\n</think>\n\nSo:\n<minimax:tool_call>\n"
        '<invoke name="look">\n<parameter name="at">it</parameter>\n<parameter name="num">2</parameter>\n</invoke>\n'
        "</minimax:tool_call>[e~[\n]~b]tool\n<response>seen</response>\n<response>heard</response>[e~[\n]~b]ai\n<think>\n"
    )
    assert made.prompt_text([Message("system", "Be"), *STEPS[:4]]) == expected
    assert made.prompt_text(STEPS[:1]).startswith(f"]~!b[]~b]system\n{SPECS['minimax2'].default_system}[e~[\n]~b]user")


def test_minimax2_trains_what_follows_the_opened_thought(renderer):
    made = renderer("minimax2")
    rows = made.render(HISTORY)
    assert trained(rows) == ["Add.\n</think>\n\n2[e~[", "Double.\n</think>\n\n4[e~["]
    assert [row[0].text for row in rows] == [made.prompt_text(HISTORY[:1]), made.prompt_text(HISTORY[:3])]
    assert "Add." not in rows[1][0].text
    (steps,) = made.render(STEPS)
    assert len(trained([steps])) == 2
    assert made.prompt_text(STEPS[:4]) == "".join(segment.text for segment in steps[:3])


def test_minimax2_keeps_earlier_thoughts_when_told_to(renderer):
    made = renderer("minimax2", preserve_thinking=True)
    (row,) = made.render(HISTORY)
    assert "".join(segment.text for segment in row[:3]) == made.prompt_text(HISTORY[:3])


def test_minimax2_without_thinking_has_an_empty_thought_in_the_prompt(renderer):
    made = renderer("minimax2", enable_thinking=False)
    rows = made.render(HISTORY)
    assert trained(rows) == ["2[e~[", "4[e~["]
    assert rows[1][0].text == made.prompt_text(HISTORY[:3])
    assert rows[1][0].text.endswith("]~b]ai\n<think>\n\n</think>\n\n")


def test_reasoning_inside_the_content_is_the_same_as_beside_it(renderer):
    inside = [Message("user", "1+1?"), Message("assistant", "<think>\nAdd.\n</think>\n\n2")]
    assert renderer("minimax2").render(inside) == renderer("minimax2").render(HISTORY[:2])


def test_an_answer_without_reasoning_has_an_empty_thought_as_in_llama_factory(renderer):
    (row,) = renderer("minimax2").render([Message("user", "?"), Message("assistant", "!")])
    assert row[1][:2] == ("\n</think>\n\n![e~[", True)


def test_every_name_stops_at_the_end_of_the_turn(renderer):
    assert renderer("minimax1").stop == ("<end_of_sentence>",)
    assert renderer("minimax2").stop == ("[e~[",)


@pytest.mark.parametrize(("name", "tag"), [("minimax1", "<tool_calls>"), ("minimax2", "<minimax:tool_call>")])
def test_what_has_no_place_is_refused(renderer, name, tag):
    refused = {
        "part of type image": Message("user", (Media("image", "a.png"),)),
        "a turn of critic": Message("critic", "?"),
        "cannot be told from the call": Message("assistant", tag, tool_calls=(ToolCall("f", {}),)),
    }
    for reason, turn in refused.items():
        with pytest.raises(DataError, match=reason):
            renderer(name).prompt_text([HISTORY[0], turn])


def test_tools_and_calls_are_written_as_llama_factory_writes_them():
    if not GOLDEN.exists():
        pytest.skip(f"{GOLDEN} is not there")
    compared = dict.fromkeys(FORMS, 0)
    for case in map(json.loads, (GOLDEN / "llamafactory_cases.jsonl").open()):
        form = FORMS.get(case.get("tool_format"))
        if not form or (case["kind"] == "tool_formatter" and not case["input"]):
            continue
        if case["kind"] == "tool_extractor":
            assert read_answer(form, case["input"]) == (case["expected"], ())
        elif case["kind"] == "function_formatter":
            assert write_answer(form, *called(case["input"])) == as_published(form, case["expected"][0])
        elif form is MINIMAX2:  # M1's published template shows tools whole, and other words for what to fill in
            told = compiled(form.system).render(system=None, tools=case["input"])
            # a line break less in the published template
            assert told == case["expected"][0].replace("# Tools\n\nYou", "# Tools\nYou")
        else:
            continue
        compared[form.name] += 1
    assert compared == {"minimax1": 5, "minimax2": 9}


def called(text):
    """What stands before the calls of one of LLaMA-Factory's function turns, and the calls."""
    content, mark, calls = text.rpartition("</think>\n\n")
    calls = json.loads(calls)
    return content + mark, [ToolCall(**call) for call in (calls if isinstance(calls, list) else [calls])]


def as_published(form, text):
    """LLaMA-Factory leaves out the tag around M2's calls, without which its own reader finds none."""
    before, mark, calls = text.rpartition("</think>\n\n")
    around = ("\n<minimax:tool_call>\n", "\n</minimax:tool_call>") if form is MINIMAX2 else ("", "")
    return before + mark + around[0] + calls + around[1]


TAGS = st.sampled_from(
    ["</parameter>", '">', "<minimax:tool_call>", "<tool_calls>", "</tool_calls>", "12", "true", "\n"]
)
TEXT = st.lists(TAGS | st.text(max_size=8), max_size=4).map("".join)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
KINDS = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}
CALL = st.builds(ToolCall, TEXT, st.dictionaries(TEXT, VALUES, max_size=3))
CALLS = st.lists(CALL, min_size=1, max_size=3, unique_by=lambda one: one.name).map(tuple)


def tools_of(calls):
    """Schemas that say what each argument is."""
    kinds = {
        call.name: {key: {"type": KINDS.get(type(value), "null")} for key, value in call.arguments.items()}
        for call in calls
    }
    return tuple({"name": name, "parameters": {"properties": known}} for name, known in kinds.items())


@given(TEXT, CALLS)
def test_json_calls_are_read_as_they_were_written_or_refused(content, calls):
    try:
        text = write_answer(MINIMAX1, content, calls)
    except DataError:
        assert "<tool_calls>" in content
    else:
        assert read_answer(MINIMAX1, text) == (content, calls)


@given(TEXT, CALLS)
def test_tagged_calls_are_read_as_they_were_written_or_refused(content, calls):
    try:
        text = write_answer(MINIMAX2, content, calls)
    except DataError:
        names = [call.name for call in calls] + [key for call in calls for key in call.arguments]
        values = json.dumps([call.arguments for call in calls], ensure_ascii=False)
        assert "<minimax:tool_call>" in content or "</parameter>" in values or any('">' in name for name in names)
    else:
        assert read_answer(MINIMAX2, text, tools_of(calls)) == (content, calls)


def test_without_a_schema_a_value_is_json_or_text():
    text = write_answer(MINIMAX2, "", [ToolCall("f", {"a": 1, "b": True, "c": None, "d": [1], "e": "word"})])
    assert read_answer(MINIMAX2, text)[1][0].arguments == {"a": 1, "b": True, "c": None, "d": [1], "e": "word"}
