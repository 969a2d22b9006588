"""Reference: the published templates' renders of ChatGLM3, GLM-4 and GLM-4.5 (golden/renders.jsonl), and the strings of
LLaMA-Factory for the others and for both dialects (golden/llamafactory_templates.jsonl, llamafactory_cases.jsonl)."""

import json
import re
from pathlib import Path

import ftk_template_glm
import pytest
from ftk import DataError, Media, Message, Text, ToolCall
from ftk_data.environment import compiled
from ftk_data.tools import read_answer, write_answer
from ftk_template_glm.tools import GLM4, GLM4_MOE
from hypothesis import given
from hypothesis import strategies as st

CASES = Path(__file__).parents[4] / "shared" / "golden" / "llamafactory_cases.jsonl"
SPECS = {spec.name: spec for spec in ftk_template_glm.ftk_chat_templates()}
EOS = "<|endoftext|>"
TOOLS = ({"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}},)
HISTORY = [
    Message("user", "1+1?"),
    Message("assistant", "2", reasoning="Add."),
    Message("user", "2+2?"),
    Message("assistant", "4", reasoning="Double."),
]
PLAIN = [Message(one.role, one.content) for one in HISTORY]
LOOKED = [
    Message("user", "?"),
    Message("assistant", tool_calls=(ToolCall("look", {"at": "1", "n": 2}),)),
    Message("tool", "a"),
    Message("assistant", "Done"),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
STRINGS = st.sampled_from(["10", "null", '"x"', "<arg_key>", "</tool_call>", " a\n", "[1]", "<tool_call>x"])
ARGUMENTS = st.dictionaries(st.text(), JSON | STRINGS, max_size=3)
CALLS = st.lists(st.builds(ToolCall, st.text(), ARGUMENTS), min_size=1, max_size=3, unique_by=lambda call: call.name)
TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}


def described(calls):
    """Tools with the types that the arguments have."""
    return tuple(
        {
            "type": "function",
            "function": {
                "name": call.name,
                "parameters": {
                    "type": "object",
                    "properties": {
                        key: {"type": TYPES.get(type(value), "null")} for key, value in call.arguments.items()
                    },
                },
            },
        }
        for call in calls
    )


def answers_of(rows):
    """(all that comes before it, text) of each trained answer."""
    return [
        ("".join(before.text for before in row[:i]), one.text)
        for row in rows
        for i, one in enumerate(row)
        if one.trained
    ]


def conversation_of(case):
    """A case of the peer as ftk has it: calls and reasoning are not text."""
    made = [Message("system", case["system"])] if case["system"] else []
    roles = {"observation": "tool", "function": "assistant"}
    for one in case["messages"]:
        content, thought = one["content"], None
        if one["role"] in ("assistant", "function") and "</think>" in content:
            thought, content = re.fullmatch(r"<think>\n?(.*?)\n?</think>\n*(.*)", content, re.DOTALL).groups()
        calls = ()
        if one["role"] == "function":
            given = json.loads(content)
            calls = tuple(
                ToolCall(call["name"], call["arguments"]) for call in (given if isinstance(given, list) else [given])
            )
            content = ""
        made.append(Message(roles.get(one["role"], one["role"]), content, reasoning=thought, tool_calls=calls))
    tools = [{"type": "function", "function": tool} for tool in json.loads(case["tools"] or "[]")]
    return made, tuple(tools)


def unclosed(text):
    """The peer's glm4_moe never closes a call, so that nobody can read one; the published GLM-4.5 does."""
    return text.replace("</tool_call>\n<tool_call>", "\n<tool_call>").replace("\n</tool_call>", "")


def test_it_renders_what_the_published_template_renders(check_published):
    # the first two leave tools, calls and results out without a word
    assert check_published(SPECS["chatglm3"], "chatglm3", lambda case: case["tools"]) == 26
    assert check_published(SPECS["glm4"], "glm4", lambda case: case["tools"]) == 26
    assert check_published(SPECS["glm4_moe"], "glm4_moe") == 48


@pytest.mark.parametrize(
    ("name", "num"), [("glmz1", 34), ("glm4v", 34), ("glm4_5v", 36), ("aeva", 36), ("glm_ocr", 22)]
)
def test_it_writes_what_the_peer_writes(make_renderer, peer_cases, name, num):
    """With the end token after what is trained, which the peer has as a label only."""
    compared = 0
    for case in peer_cases(name):
        if "error" in case:
            continue
        if name == "glm_ocr" and case["case"] == "thought_tool":  # no room for a thought beside a call
            continue
        if case["method"] == "encode_multiturn" and (case["method_kwargs"] or case["enable_thinking"] is not True):
            continue  # it keeps the empty thoughts of earlier prompts there, which no prompt of its own has
        messages, tools = conversation_of(case)
        options = {"enable_thinking": case["enable_thinking"]} if SPECS[name].thinking else {}
        if case["method"] == "encode_multiturn":
            options["preserve_thinking"] = True
        made = make_renderer(SPECS[name], case["bos_token"], case["eos_token"], **options)
        before, answer = answers_of(made.render(messages, tools))[-1]
        expected = case["expected"]
        if case["method"] == "encode_multiturn":
            expected = ["".join(map("".join, expected[:-1])) + expected[-1][0], expected[-1][1]]
        assert unclosed(before) == unclosed(expected[0]), case["case"]
        assert unclosed(answer) == unclosed(expected[1]) + case["eos_token"], case["case"]
        compared += 1
    assert compared == num


@pytest.mark.parametrize(
    ("name", "options", "messages"),
    [
        (name, options, messages)
        for name, spec in SPECS.items()
        for options in ([{"enable_thinking": True}, {"enable_thinking": False}] if spec.thinking else [{}])
        for messages in ([HISTORY, PLAIN, LOOKED] if spec.thinking else [PLAIN, LOOKED])
    ],
)
def test_each_answer_is_trained_after_its_prompt_with_the_end_token(make_renderer, name, options, messages):
    made = make_renderer(SPECS[name], None, EOS, **options)
    tools = TOOLS if messages is LOOKED else ()
    answers = answers_of(made.render(messages, tools))
    turns = [i for i, one in enumerate(messages) if one.role == "assistant"]
    assert [before for before, _ in answers] == [made.prompt_text(messages[:turn], tools) for turn in turns]
    assert all(answer.endswith(EOS) for _, answer in answers)
    assert made.stop[:3] == ("</s>" if name == "chatglm3" else EOS, "<|user|>", "<|observation|>")


def test_an_answer_ends_with_the_token_that_the_next_turn_begins_with(make_renderer):
    made = make_renderer(SPECS["glm4"], None, EOS, added=("<|user|>", "<|observation|>", "<|assistant|>", EOS))
    (row,) = made.render(PLAIN)
    trained = [segment.text for segment in row if segment.trained]
    assert [text.endswith("<|user|>") for text in trained] == [True] * (len(trained) - 1) + [False]
    assert trained[-1].endswith(EOS)
    assert "".join(segment.text for segment in row).count("<|user|>") == len(trained)
    called = [text for row in made.render(LOOKED, TOOLS) for text, learnt, *_ in row if learnt]
    assert called[0].endswith("<|observation|>")


def test_glm4_moe_trains_the_last_thought_and_drops_earlier_ones(make_renderer):
    made = make_renderer(SPECS["glm4_moe"], None, EOS)
    assert answers_of(made.render(HISTORY)) == [
        ("[gMASK]<sop><|user|>\n1+1?<|assistant|>", f"\n<think>Add.</think>\n2{EOS}"),
        (
            "[gMASK]<sop><|user|>\n1+1?<|assistant|>\n<think></think>\n2<|user|>\n2+2?<|assistant|>",
            f"\n<think>Double.</think>\n4{EOS}",
        ),
    ]


@pytest.mark.parametrize("name", ["chatglm3", "glm4", "glm_ocr", "glmz1"])
def test_two_calls_or_a_content_beside_one_are_refused(make_renderer, name):
    made = make_renderer(SPECS[name], None, EOS)
    call = ToolCall("look", {})
    for answer in (Message("assistant", tool_calls=(call, call)), Message("assistant", "Wait", tool_calls=(call,))):
        with pytest.raises(DataError, match="one call a turn"):
            made.render([LOOKED[0], answer], TOOLS)


@pytest.mark.parametrize("name", ["glm_ocr", "glm4v", "glm4_5v"])
def test_media_stand_between_their_tokens(make_renderer, name):
    made = make_renderer(SPECS[name], None, EOS)
    asked = Message("user", (Media("image", "cat.png"), Media("video", "cat.mp4"), Text("What?")))
    text = made.prompt_text([asked])
    assert text == "[gMASK]<sop><|user|>\n" + "".join(SPECS[name].media.values()) + "What?<|assistant|>"
    with pytest.raises(DataError, match="a part of type audio has no place"):
        made.prompt_text([Message("user", (Media("audio", "cat.wav"),))])


def test_aeva_has_a_system_text_of_its_own(make_renderer):
    asked = [Message("user", "Hi")]
    assert "Aeva" in make_renderer(SPECS["aeva"], None, EOS).prompt_text(asked)
    assert make_renderer(SPECS["glm4_7"], None, EOS).prompt_text(asked) == "[gMASK]<sop><|user|>\nHi<|assistant|>"


def test_the_dialects_write_what_the_peer_writes():
    """Except that its glm4_moe neither closes a call nor reads one."""
    if not CASES.exists():
        pytest.skip(f"{CASES} is not there")
    compared = 0
    forms = {"glm4": GLM4, "glm4_moe": GLM4_MOE}
    for case in map(json.loads, CASES.open(encoding="utf-8")):
        form = forms.get(case.get("tool_format"))
        if not form or not case["input"] or case["kind"] == "tool_extractor":
            continue
        if case["kind"] == "tool_formatter":
            tools = [tool if "function" in tool else {"type": "function", "function": tool} for tool in case["input"]]
            assert compiled(form.system).render(system=None, tools=tools) == case["expected"][0]
        else:
            thought, given = re.fullmatch(r"(<think>.*</think>\n\n)?(.*)", case["input"], re.DOTALL).groups()
            given = json.loads(given)
            calls = tuple(ToolCall(**call) for call in (given if isinstance(given, list) else [given]))
            text = write_answer(form, thought or "", calls)
            assert text.replace("</tool_call>", "").removesuffix("\n") == case["expected"][0]
            assert read_answer(form, text, described(calls)) == (thought or "", calls)
        compared += 1
    assert compared == 11


@given(ARGUMENTS, st.from_regex(r"[\w.-]+", fullmatch=True))
def test_a_call_of_glm4_is_read_back_as_it_was_written(arguments, name):
    calls = (ToolCall(name, arguments),)
    text = write_answer(GLM4, "", calls)
    assert read_answer(GLM4, text) == ("", calls)
    assert read_answer(GLM4, text, described(calls)) == ("", calls)
    assert read_answer(GLM4, text, TOOLS) == (("", calls) if name == "look" else (text, ()))


@given(st.text(), CALLS)
def test_calls_of_glm4_moe_are_read_back_with_the_schema_or_refused(content, calls):
    try:
        text = write_answer(GLM4_MOE, content, calls)
    except DataError:
        said = content + json.dumps([call.arguments for call in calls])
        tags = ("<tool_call>", "</arg_key>", "</arg_value>")
        assert (
            any(tag in said for tag in tags)
            or any(call.name.split() != [call.name] for call in calls)
            or any("<" in call.name for call in calls)
        )
        return
    assert read_answer(GLM4_MOE, text, described(calls)) == (content, tuple(calls))


def test_without_a_schema_what_reads_as_json_is_json():
    text = write_answer(GLM4_MOE, "", (ToolCall("look", {"a": "10", "b": "x", "c": '"x"', "d": "NaN", "e": [1]}),))
    assert read_answer(GLM4_MOE, text)[1][0].arguments == {"a": 10, "b": "x", "c": '"x"', "d": "NaN", "e": [1]}


@pytest.mark.parametrize("value", ["</arg_value>", ["</arg_value>"]])
def test_a_value_that_holds_the_closing_tag_is_refused(make_renderer, value):
    call = ToolCall("look", {"at": value})
    with pytest.raises(DataError, match="argument at holds a closing tag"):
        write_answer(GLM4_MOE, "", (call,))
    for name in ("glm4_moe", "glm4_5v", "glm4_7"):
        with pytest.raises(DataError, match="argument at holds a closing tag"):
            make_renderer(SPECS[name], None, EOS).render([LOOKED[0], Message("assistant", tool_calls=(call,))], TOOLS)


@pytest.mark.parametrize("text", ["", "Hello\nthere", "1\n2", "Look:\n{}\nor so", "<tool_call>look\n<arg_key>at"])
def test_an_answer_without_a_whole_call_is_left_as_it_is(text):
    assert read_answer(GLM4, text) == (text, ())
    assert read_answer(GLM4_MOE, text) == (text, ())


@pytest.mark.parametrize("call", [ToolCall("", {}), ToolCall("lo ok", {}), ToolCall("lo\nok", {})])
def test_names_that_cannot_be_read_back_are_refused(call):
    for form in (GLM4, GLM4_MOE):
        with pytest.raises(DataError, match="the name of a function is empty or holds a space"):
            write_answer(form, "", (call,))
