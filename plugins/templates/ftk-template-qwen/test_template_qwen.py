"""References: the published templates' renders of six Qwen families (golden/renders.jsonl), LLaMA-Factory's strings for
those without one (golden/llamafactory_templates.jsonl) and for calls (golden/llamafactory_cases.jsonl)."""

import json
from pathlib import Path

import ftk_template_qwen
import pytest
from ftk import DataError, Media, Message, Text, ToolCall
from ftk_data.tools import read_answer, write_answer
from ftk_template_qwen.tools import QWEN, QWEN3_5
from hypothesis import given
from hypothesis import strategies as st

GOLDEN = Path(__file__).parents[4] / "shared" / "golden"
SPECS = {spec.name: spec for spec in ftk_template_qwen.ftk_chat_templates()}
HISTORY = [
    Message("user", "1+1?"),
    Message("assistant", "2", reasoning="Add."),
    Message("user", "2+2?"),
    Message("assistant", "4", reasoning="Double."),
]
STEPS = [
    Message("user", "?"),
    Message("assistant", reasoning="Look.", tool_calls=(ToolCall("look", {"at": "it"}),)),
    Message("tool", "seen"),
    Message("assistant", "Done", reasoning="Saw."),
]
TOOLS = ({"type": "function", "function": {"name": "look", "parameters": {"properties": {"at": {"type": "string"}}}}},)
PLAIN = ("qwen", "qwen2_vl", "qwen2_audio", "qwen2_omni", "qwen3_nothink", "qwen3_vl_nothink", "qwen3_omni_nothink")


@pytest.fixture
def renderer(make_renderer):
    return lambda name, **options: make_renderer(SPECS[name], None, "<|im_end|>", **options)


def trained(rows):
    return [segment.text for row in rows for segment in row if segment.trained]


def leaves_tools_out(case):
    """Qwen2-VL and Qwen2-Audio leave tools and calls out without a word."""
    return bool(case["tools"])


@pytest.mark.parametrize(
    ("family", "name", "skip", "num"),
    [
        ("qwen2.5", "qwen", lambda case: False, 42),
        ("qwen3", "qwen3", lambda case: False, 46),
        ("qwen3-2507", "qwen3_nothink", lambda case: False, 42),
        ("qwen3.5-think", "qwen3_5", lambda case: False, 48),
        ("qwen3.5-think", "qwen3_6", lambda case: False, 48),
        ("qwen2_vl", "qwen2_vl", leaves_tools_out, 34),
        ("qwen2_audio", "qwen2_audio", leaves_tools_out, 28),
    ],
)
def test_it_renders_what_the_published_template_renders(check_published, family, name, skip, num):
    assert check_published(SPECS[name], family, skip) == num


def as_ftk(case):
    """The conversation and the tools of one of LLaMA-Factory's cases."""
    turns = [Message("system", case["system"])] if case["system"] else []
    for one in case["messages"]:
        thought, mark, said = one["content"].rpartition("\n</think>\n\n")
        if one["role"] == "function":
            calls = json.loads(said)
            calls = [ToolCall(**call) for call in (calls if isinstance(calls, list) else [calls])]
            reasoning = thought.removeprefix("<think>\n") if mark else None
            turns.append(Message("assistant", reasoning=reasoning, tool_calls=tuple(calls)))
        else:
            turns.append(Message({"observation": "tool"}.get(one["role"], one["role"]), one["content"]))
    tools = json.loads(case["tools"] or "[]")
    return turns, tuple(tool if "function" in tool else {"type": "function", "function": tool} for tool in tools)


def is_compared(case, thinking):
    """Left out is where the published Qwen3 templates, which these follow, differ from LLaMA-Factory."""
    if not thinking:
        # a thought is text then, and a newline stands between text and call
        return case["case"] != "thought_tool"
    if case["case"] == "whitespace":
        return False  # newlines before an answer are stripped
    # thoughts since the last question stay in the prompt
    return case["case"] != "thought_tool" or is_whole(case) or case["enable_thinking"] is False


def is_whole(case):
    """Whether every answer of the case has its thought, as with ``preserve_thinking``."""
    return case["method"] == "encode_multiturn" and not case["method_kwargs"]


@pytest.mark.parametrize(
    ("name", "num"), [("qwen2_omni", 24), ("qwen3_omni_nothink", 24), ("qwen3_vl", 54), ("qwen3_omni", 54)]
)
def test_where_none_is_published_it_writes_what_llama_factory_writes(peer_cases, make_renderer, name, num):
    compared = 0
    for case in peer_cases(name):
        if not is_compared(case, SPECS[name].thinking):
            continue
        options = {}
        if SPECS[name].thinking:
            options = {"preserve_thinking": is_whole(case), "enable_thinking": case["enable_thinking"]}
        rows = make_renderer(SPECS[name], case["bos_token"], case["eos_token"], **options).render(*as_ftk(case))
        pairs = [case["expected"]] if isinstance(case["expected"][0], str) else case["expected"]
        expected = "".join(prompt + answer for prompt, answer in pairs)
        # LLaMA-Factory leaves the place of a missing system text empty; the published Qwen3 template does not
        expected = expected.replace("<|im_start|>system\n\n\n#", "<|im_start|>system\n#")
        assert "".join(segment.text for segment in rows[-1]) == expected, (case["case"], case["method"])
        assert trained(rows)[-1] + "\n" == pairs[-1][1]
        compared += 1
    assert compared == num


def test_history_without_its_reasoning_gives_each_answer_a_row(renderer):
    first, second = renderer("qwen3").render(HISTORY)
    assert first[1][:2] == ("<think>\nAdd.\n</think>\n\n2<|im_end|>", True)
    assert "Add." not in "".join(segment.text for segment in second)
    assert trained([second]) == ["<think>\nDouble.\n</think>\n\n4<|im_end|>"]


@pytest.mark.parametrize("name", ["qwen3", "qwen3_vl", "qwen3_omni", "qwen3_5", "qwen3_6"])
def test_each_row_begins_with_the_prompt_of_its_answer(renderer, name):
    made = renderer(name)
    rows = made.render(HISTORY)
    assert [row[0].text for row in rows] == [made.prompt_text(HISTORY[:1]), made.prompt_text(HISTORY[:3])]


@pytest.mark.parametrize("name", PLAIN)
def test_without_reasoning_a_conversation_is_one_row_that_begins_with_each_prompt(renderer, name):
    made = renderer(name)
    turns = [Message("user", "a"), Message("assistant", "b"), Message("user", "c"), Message("assistant", "d")]
    (row,) = made.render(turns)
    assert trained([row]) == ["b<|im_end|>", "d<|im_end|>"]
    assert row[0].text == made.prompt_text(turns[:1])
    assert "".join(segment.text for segment in row[:3]) == made.prompt_text(turns[:3])
    assert row[-1][:2] == ("\n", False)


def test_every_name_stops_at_the_end_of_the_turn(renderer):
    assert {renderer(name).stop for name in SPECS} == {("<|im_end|>",)}


def test_preserve_thinking_keeps_one_row(renderer):
    made = renderer("qwen3", preserve_thinking=True)
    (row,) = made.render(HISTORY)
    assert trained([row]) == ["<think>\nAdd.\n</think>\n\n2<|im_end|>", "<think>\nDouble.\n</think>\n\n4<|im_end|>"]
    assert made.prompt_text(HISTORY[:3]) == "".join(segment.text for segment in row[:3])


def test_without_thinking_the_prompt_holds_the_empty_thought_and_reasoning_is_left_out(renderer):
    for name in ("qwen3", "qwen3_5"):
        rows = renderer(name, enable_thinking=False).render(HISTORY)
        assert trained(rows) == ["2<|im_end|>", "4<|im_end|>"]
        assert rows[1][0].text == renderer(name, enable_thinking=False).prompt_text(HISTORY[:3])
        assert rows[1][0].text.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")


def test_thinking_as_each_conversation_has_it(renderer):
    made = renderer("qwen3", enable_thinking=None)
    assert made.render(HISTORY[:2])[0][1].text.startswith("<think>\nAdd.")
    plain = made.render([Message("user", "1+1?"), Message("assistant", "2")])
    assert plain[0][0].text.endswith("<think>\n\n</think>\n\n")
    assert plain[0][1].text == "2<|im_end|>"


def test_reasoning_inside_the_content_is_the_same_as_beside_it(renderer):
    inside = [Message("user", "1+1?"), Message("assistant", "<think>\nAdd.\n</think>\n\n2")]
    assert renderer("qwen3").render(inside) == renderer("qwen3").render(HISTORY[:2])
    assert renderer("qwen3_5").render(inside) == renderer("qwen3_5").render(HISTORY[:2])


def test_steps_after_one_question_share_a_row_when_they_reason(renderer):
    (row,) = renderer("qwen3").render(STEPS)
    assert [segment.trained for segment in row] == [False, True, False, True, False]
    assert row[1].text.endswith('{"name": "look", "arguments": {"at": "it"}}\n</tool_call><|im_end|>')


def test_qwen3_5_opens_the_thought_in_the_prompt_and_trains_what_follows(renderer):
    rows = renderer("qwen3_5").render(HISTORY)
    assert trained(rows) == ["Add.\n</think>\n\n2<|im_end|>", "Double.\n</think>\n\n4<|im_end|>"]
    assert rows[0][0].text.endswith("<|im_start|>assistant\n<think>\n")
    (whole,) = renderer("qwen3_5", preserve_thinking=True).render(HISTORY)
    assert trained([whole]) == trained(rows)


def test_qwen3_5_writes_its_calls_as_its_dialect_does(renderer):
    (row,) = renderer("qwen3_5").render(STEPS)
    assert row[1].text == "Look.\n</think>\n\n" + write_answer(QWEN3_5, "", STEPS[1].tool_calls) + "<|im_end|>"
    told = renderer("qwen3_5").prompt_text(HISTORY[:1], TOOLS)
    assert told.startswith(renderer("qwen3_5_nothink").prompt_text(HISTORY[:1], TOOLS).partition("<|im_end|>")[0])


def test_qwen3_5_refuses_what_it_cannot_write(renderer):
    call = ToolCall("look", {"at": "</parameter>"})
    refused = {
        "needs a question": [Message("assistant", "Hi")],
        "a turn of system": [*HISTORY, Message("system", "Now")],
        "a part of type image": [Message("system", (Media("image", "a.png"),)), *HISTORY],
        "holds the tag": [*HISTORY[:1], Message("assistant", tool_calls=(call,))],
        "cannot be told from the call": [Message("user", "?"), Message("assistant", "<tool_call>", tool_calls=(call,))],
    }
    for reason, turns in refused.items():
        with pytest.raises(DataError, match=reason):
            renderer("qwen3_5").prompt_text(turns)


@pytest.mark.parametrize("name", [name for name, spec in SPECS.items() if spec.media])
def test_each_medium_is_written_as_the_spec_says(renderer, name):
    for kind, shown in SPECS[name].media.items():
        text = renderer(name).prompt_text([Message("user", (Text("See "), Media(kind, "file"), Text("?")))])
        assert text.count(shown) == 1


def test_qwen2_audio_numbers_its_sounds_and_refuses_tools(renderer):
    made = renderer("qwen2_audio")
    turns = [Message("user", (Media("audio", "a"), Media("audio", "b"), Text("Same?"))), Message("assistant", "No")]
    turns.append(Message("user", (Media("audio", "c"),)))
    sound = "<|audio_bos|><|AUDIO|><|audio_eos|>\n"
    text = made.prompt_text(turns)
    assert f"user\nAudio 1: {sound}Audio 2: {sound}Same?<|im_end|>" in text
    assert f"user\nAudio 3: {sound}<|im_end|>" in text
    with pytest.raises(DataError, match="knows no tools"):
        made.prompt_text(HISTORY[:1], TOOLS)
    with pytest.raises(DataError, match="knows no tools"):
        made.render(STEPS)


@pytest.mark.parametrize("form", [QWEN, QWEN3_5], ids=lambda form: form.name)
def test_calls_are_written_as_llama_factory_writes_them(form):
    if not GOLDEN.exists():
        pytest.skip(f"{GOLDEN} is not there")
    compared = 0
    for case in map(json.loads, (GOLDEN / "llamafactory_cases.jsonl").open()):
        if case.get("tool_format") != form.name or case["kind"] == "tool_formatter":
            continue
        if case["kind"] == "tool_extractor":
            assert read_answer(form, case["input"]) == (case["expected"], ())
        else:
            content, calls = called(case["input"])
            # LLaMA-Factory puts nothing between a thought and a call; the published template puts an empty line
            assert write_answer(form, content, calls).replace("</think>\n\n\n\n", "</think>\n\n") == case["expected"][0]
        compared += 1
    assert compared == {"qwen": 5, "qwen3_5": 6}[form.name]


def called(text):
    """What stands before the calls of one of LLaMA-Factory's function turns, and the calls."""
    content, mark, calls = text.rpartition("</think>\n\n")
    calls = json.loads(calls)
    return content + mark, [ToolCall(**call) for call in (calls if isinstance(calls, list) else [calls])]


TAGS = st.sampled_from(
    ["</parameter>", "\n</parameter>\n", "<tool_call>", "</tool_call>", "12", "true", "None", "\n", ""]
)
TEXT = st.lists(TAGS | st.text(max_size=8), max_size=4).map("".join)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
KINDS = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}
PLAIN_NAMES = st.from_regex(r"[A-Za-z_][\w.-]{0,12}", fullmatch=True)


def calls_of(names):
    call = st.builds(ToolCall, names, st.dictionaries(TEXT, VALUES, max_size=3))
    return st.lists(call, min_size=1, max_size=3, unique_by=lambda one: one.name).map(tuple)


def tools_of(calls):
    """Schemas that say what each argument is."""
    kinds = {
        call.name: {key: {"type": KINDS.get(type(value), "null")} for key, value in call.arguments.items()}
        for call in calls
    }
    return tuple({"name": name, "parameters": {"properties": known}} for name, known in kinds.items())


@given(TEXT, calls_of(PLAIN_NAMES | TEXT))
def test_json_calls_are_read_as_they_were_written_or_refused(content, calls):
    try:
        text = write_answer(QWEN, content, calls)
    except DataError:
        assert "<tool_call>" in content
    else:
        assert read_answer(QWEN, text) == (content, calls)


@given(TEXT, calls_of(PLAIN_NAMES | TEXT))
def test_tagged_calls_are_read_as_they_were_written_or_refused(content, calls):
    try:
        text = write_answer(QWEN3_5, content, calls)
    except DataError:
        names = [call.name for call in calls] + [key for call in calls for key in call.arguments]
        values = json.dumps([call.arguments for call in calls], ensure_ascii=False)
        assert (
            "<tool_call>" in content
            or "</parameter>" in values
            or any({">", "\n"} & set(name) for name in names)
            or not all(call.name for call in calls)
        )
    else:
        assert read_answer(QWEN3_5, text, tools_of(calls)) == (content, calls)


def test_without_a_schema_a_value_is_json_or_text():
    text = write_answer(QWEN3_5, "", [ToolCall("f", {"a": 1, "b": True, "c": None, "d": [1], "e": "word"})])
    assert read_answer(QWEN3_5, text)[1][0].arguments == {"a": 1, "b": True, "c": None, "d": [1], "e": "word"}
