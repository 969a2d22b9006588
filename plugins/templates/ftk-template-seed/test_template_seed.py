"""References: LLaMA-Factory's strings of seed_coder (golden/llamafactory_templates.jsonl) and of calls
(golden/llamafactory_cases.jsonl); Seed-OSS's published template (llama.cpp's copy of it), written out by hand."""

import json
from pathlib import Path

import ftk_template_seed
import pytest
from ftk import DataError, Media, Message, ToolCall
from ftk_data.environment import compiled, render_marked
from ftk_data.tools import read_answer, write_answer
from ftk_template_seed.tools import SEED_OSS
from hypothesis import given
from hypothesis import strategies as st

GOLDEN = Path(__file__).parents[4] / "shared" / "golden"
SPECS = {spec.name: spec for spec in ftk_template_seed.ftk_chat_templates()}
HISTORY = [
    Message("user", "1+1?"),
    Message("assistant", " 2 ", reasoning="Add."),
    Message("user", "2+2?"),
    Message("assistant", "4", reasoning="Double."),
]
STEPS = [
    Message("user", "?"),
    Message("assistant", "So:", tool_calls=(ToolCall("look", {"at": "it", "num": 2}), ToolCall("look", {}))),
    Message("tool", "seen"),
    Message("assistant", "Done"),
]
SCHEMA = {
    "properties": {"at": {"type": "string", "description": "Place"}, "num": {"type": "number"}},
    "required": ["at"],
}
TOOLS = ({"type": "function", "function": {"name": "look", "description": " Look. ", "parameters": SCHEMA}},)


@pytest.fixture
def oss(make_renderer):
    return lambda **options: make_renderer(SPECS["seed_oss"], "<seed:bos>", "<seed:eos>", **options)


def trained(rows):
    return [segment.text for row in rows for segment in row if segment.trained]


def test_seed_coder_writes_what_llama_factory_writes(peer_cases, make_renderer):
    compared = 0
    for case in peer_cases("seed_coder"):
        if case["tools"]:  # in LLaMA-Factory's own words for tools, which are not the family's
            continue
        turns = [Message("system", case["system"])] if case["system"] else []
        turns += [Message(one["role"], one["content"]) for one in case["messages"]]
        (row,) = make_renderer(SPECS["seed_coder"], case["bos_token"], case["eos_token"]).render(turns)
        pairs = [case["expected"]] if isinstance(case["expected"][0], str) else case["expected"]
        assert "".join(segment.text for segment in row) == "".join(prompt + answer for prompt, answer in pairs)
        assert row[-1][:2] == (pairs[-1][1], True)
        compared += 1
    assert compared == 14


def test_seed_coder_begins_with_each_prompt_and_writes_results_as_questions(make_renderer):
    made = make_renderer(SPECS["seed_coder"], "<s>", "</s>")
    turns = [Message("user", "a"), Message("assistant", "b"), Message("tool", "c"), Message("assistant", "d")]
    (row,) = made.render(turns)
    assert "".join(segment.text for segment in row[:3]) == made.prompt_text(turns[:3])
    assert row[2].text == "<s>user\nc</s><s>assistant\n"
    assert made.stop == ("</s>",)


def test_seed_oss_is_written_as_published(oss):
    expected = (
        "<seed:bos>system\nBe<seed:eos><seed:bos>user\n1+1?<seed:eos><seed:bos>assistant\n"
        "<seed:think>Add.</seed:think>\n2<seed:eos><seed:bos>user\n2+2?<seed:eos><seed:bos>assistant\n"
    )
    assert oss().prompt_text([Message("system", "Be"), *HISTORY[:3]]) == expected
    expected = (
        "<seed:bos>user\n?<seed:eos><seed:bos>assistant\nSo:\n\n<seed:tool_call>\n<function=look>\n"
        "<parameter=at>it</parameter>\n<parameter=num>2</parameter>\n</function>\n</seed:tool_call>\n<seed:tool_call>\n"
        "<function=look>\n</function>\n</seed:tool_call><seed:eos><seed:bos>tool\nseen<seed:eos><seed:bos>assistant\n"
    )
    assert oss().prompt_text(STEPS[:3]) == expected


DESCRIBED = '''<seed:bos>system
You are Doubao, a helpful AI assistant. You may call one or more functions to assist with the user query.

Function:
def look(at: str,num: int):
    """
    Look.

    Args:
    - at (str) [必填]: Place
    - num (int) [选填]:\x20

    """

Function:
def wait():
    """
\x20\x20\x20\x20


    Returns:
    - over (bool): Whether
    """
工具调用请遵循如下格式:
<seed:tool_call>
'''


def test_seed_oss_describes_its_tools_as_python_functions(oss):
    wait = {"name": "wait", "returns": {"properties": {"over": {"type": "boolean", "description": "Whether"}}}}
    assert oss().prompt_text(HISTORY[:1], (*TOOLS, wait)).startswith(DESCRIBED)


def test_seed_oss_describes_its_tools_as_json_where_a_server_asks_for_it(oss):
    asked = {"add_generation_prompt": True, "tools": list(TOOLS), "use_json_tooldef": True}
    text, _ = render_marked(oss().jinja(), [{"role": "user", "content": "?"}], **asked)
    told = compiled(SEED_OSS.system).render(system=None, tools=list(TOOLS))
    assert text == f"<seed:bos>system\n{told}<seed:eos><seed:bos>user\n?<seed:eos><seed:bos>assistant\n"


def test_seed_oss_keeps_thoughts_so_that_a_conversation_is_one_row(oss):
    (row,) = oss().render(HISTORY)
    assert trained([row]) == [
        "<seed:think>Add.</seed:think>\n2<seed:eos>",
        "<seed:think>Double.</seed:think>\n4<seed:eos>",
    ]
    assert row[0].text == oss().prompt_text(HISTORY[:1])
    assert "".join(segment.text for segment in row[:3]) == oss().prompt_text(HISTORY[:3])


def test_seed_oss_without_thinking_has_an_empty_thought_in_each_prompt(oss):
    (row,) = oss(enable_thinking=False).render(HISTORY)
    assert trained([row]) == ["2<seed:eos>", "4<seed:eos>"]
    assert row[0].text.endswith("<seed:bos>assistant\n<seed:think></seed:think>\n")
    assert "".join(segment.text for segment in row[:3]) == oss(enable_thinking=False).prompt_text(HISTORY[:3])


def test_seed_oss_thinks_as_each_conversation_does(oss):
    assert trained(oss(enable_thinking=None).render(HISTORY[:2]))[0].startswith("<seed:think>Add.")
    assert trained(oss(enable_thinking=None).render([HISTORY[0], Message("assistant", "2")])) == ["2<seed:eos>"]


def test_seed_oss_stops_at_the_end_of_the_turn_and_trains_its_calls(oss):
    assert oss().stop == ("<seed:eos>",)
    assert trained(oss().render(STEPS))[0] == write_answer(SEED_OSS, "So:", STEPS[1].tool_calls) + "<seed:eos>"


@pytest.mark.parametrize(
    ("turn", "reason"),
    [
        (Message("user", (Media("image", "a.png"),)), "part of type image"),
        (Message("assistant", "<seed:tool_call>", tool_calls=(ToolCall("f", {}),)), "cannot be told from the call"),
        (Message("assistant", tool_calls=(ToolCall("f>", {}),)), "a name without >"),
        (Message("assistant", tool_calls=(ToolCall("f", {"a": "</parameter>"}),)), "parameter a holds the tag"),
    ],
)
def test_what_seed_oss_cannot_write_is_refused(oss, turn, reason):
    with pytest.raises(DataError, match=reason):
        oss().prompt_text([HISTORY[0], turn])


def test_tools_and_calls_are_written_as_llama_factory_writes_them():
    if not GOLDEN.exists():
        pytest.skip(f"{GOLDEN} is not there")
    compared = 0
    for case in map(json.loads, (GOLDEN / "llamafactory_cases.jsonl").open()):
        if case.get("tool_format") != "seed_oss":
            continue
        if case["kind"] == "tool_extractor":
            assert read_answer(SEED_OSS, case["input"]) == (case["expected"], ())
        elif case["kind"] == "tool_formatter":
            # LLaMA-Factory writes the role into the text, and no line break before the list
            expected = case["expected"][0].removeprefix("system\n").replace("query.Tool", "query.\nTool")
            assert compiled(SEED_OSS.system).render(system=None, tools=case["input"]) == expected
        else:
            # LLaMA-Factory's template leaves out the role, hence the line break, and a > (reference, section 6)
            call = ToolCall(**json.loads(case["input"]))
            expected = case["expected"][0].replace(f"<function={call.name}", f"<function={call.name}>")
            assert "\n" + write_answer(SEED_OSS, "", [call]) == expected
        compared += 1
    assert compared == 8


TAGS = st.sampled_from(["</parameter>", "<seed:tool_call>", "</seed:tool_call>", "</function>", "12", "true", "\n"])
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
def test_calls_are_read_as_they_were_written_or_refused(content, calls):
    try:
        text = write_answer(SEED_OSS, content, calls)
    except DataError:
        names = [call.name for call in calls] + [key for call in calls for key in call.arguments]
        values = json.dumps([call.arguments for call in calls], ensure_ascii=False)
        assert (
            "<seed:tool_call>" in content
            or "</parameter>" in values
            or any({">", "\n"} & set(name) for name in names)
            or not all(call.name for call in calls)
        )
    else:
        assert read_answer(SEED_OSS, text, tools_of(calls)) == (content, calls)


def test_without_a_schema_a_value_is_json_or_text():
    text = write_answer(SEED_OSS, "", [ToolCall("f", {"a": 1, "b": True, "c": None, "d": [1], "e": "word"})])
    assert read_answer(SEED_OSS, text)[1][0].arguments == {"a": 1, "b": True, "c": None, "d": [1], "e": "word"}
