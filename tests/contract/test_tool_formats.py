"""What a tool dialect writes, its reader reads back, for any JSON arguments; or the writer refuses. Over all installed.

The reference is the call itself.
"""

import pytest
from ftk import DataError, ToolCall
from ftk.registry import Registry
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

tools = pytest.importorskip("ftk_data.tools")
FORMATS = list(Registry.discover().specs("tool_format").values())
TEXT = st.text(max_size=8) | st.sampled_from(
    ['"', "'", "\\", "\n", "a\nb", "{", "}", "</tool_call>", "<arg_value>", "123", "1.5", "true", "null", "[]", "{}",
     "é€😀", "it's", '"quoted"', " padded ", "<|im_end|>", "Action: x", "\u2028", "None", "True"]
)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
FLAT = TEXT | st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.lists(TEXT | st.integers(), max_size=3)
NAMES = st.sampled_from(["look", "get_weather", "a-b", "search2"])
KEYS = st.sampled_from(["city", "unit", "days", "items_2", "text"])
CALLS = st.lists(st.builds(ToolCall, NAMES, st.dictionaries(KEYS, VALUES, max_size=3)), min_size=1, max_size=3)
ODD_NAMES = st.sampled_from(
    ["a.b", "get weather", "søk_世界", 'q"x', "a'b", "<tool>", "x\ny", " padded ", "a\\b", "{x}", "a:b", "a,b", "a(b)",
     "[x]", "a=b", "true", "1", "", "functions.x", "</arg_key>", "x|y", "<|x|>"]
)  # fmt: skip
ODD_CALLS = st.lists(
    st.builds(ToolCall, NAMES | ODD_NAMES, st.dictionaries(KEYS | ODD_NAMES | st.text(max_size=4), VALUES, max_size=3)),
    min_size=1,
    max_size=3,
)
SAID = st.text(max_size=8) | st.sampled_from(
    [
        "Let me see.",
        'He said "x"',
        "a {b} [c]",
        "  padded \n",
        "Action: none",
        "1 < 2 > 0",
        "<tool_call>",
        "[TOOL_CALLS]",
        "é",
    ]
)
TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}


def described(calls):
    """The tools that were called, each parameter with the types of all its values."""
    made = {}
    for call in calls:
        properties = made.setdefault(call.name, {})
        for key, value in call.arguments.items():
            kinds = properties.setdefault(key, {"type": []})["type"]
            if (kind := TYPES.get(type(value), "null")) not in kinds:
                kinds.append(kind)
    for properties in made.values():
        for one in properties.values():
            one["type"] = one["type"][0] if len(one["type"]) == 1 else one["type"]
    return tuple(
        {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": properties}}}
        for name, properties in made.items()
    )


def mixes_strings(calls):
    """Whether a parameter is a string here and something else there; dialects of bare text cannot tell these apart."""
    types = [one["type"] for tool in described(calls) for one in tool["function"]["parameters"]["properties"].values()]
    return any("string" in one and not isinstance(one, str) for one in types)


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_what_is_written_is_read_back_or_refused(form):
    written = 0

    @settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(CALLS, st.sampled_from(["", "Let me see.", "One moment\nplease"]))
    def check(calls, content):
        nonlocal written
        assume(not mixes_strings(calls))
        try:
            text = tools.write_answer(form, content, calls)
        except DataError:
            return
        written += 1
        read, found = tools.read_answer(form, text, described(calls))
        assert [(call.name, call.arguments) for call in found] == [(call.name, call.arguments) for call in calls], text
        assert read.strip() == content, text

    check()
    assert written >= 5, "refuses nearly everything"


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_odd_names_and_keys_are_read_back_or_refused_and_so_is_what_is_said_before(form):
    @settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(ODD_CALLS, SAID)
    def check(calls, content):
        assume(not mixes_strings(calls))
        try:
            text = tools.write_answer(form, content, calls)
        except DataError:
            return
        read, found = tools.read_answer(form, text, described(calls))
        assert [(call.name, call.arguments) for call in found] == [(call.name, call.arguments) for call in calls], text
        assert read == content or not content.strip(), text

    check()


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_a_call_with_plain_names_is_never_refused(form):
    """Whatever the values: quotes, line breaks, nested, unicode, empty, what looks like the dialect's own marks."""

    @settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(NAMES, st.dictionaries(KEYS, FLAT, max_size=3))
    def check(name, arguments):
        call = ToolCall(name, arguments)
        assert (
            tools.read_answer(form, tools.write_answer(form, "", [call]), described([call]))[1][0].arguments
            == arguments
        )

    check()


def test_the_dialects_of_llama_factory_are_here():
    names = {form.name for form in FORMATS}
    assert names >= {
        "default", "glm4", "glm4_moe", "llama3", "minimax1", "minimax2", "mistral", "qwen", "qwen3_5", "gemma4", "lfm2",
        "seed_oss", "ling",
    }  # fmt: skip


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_an_answer_without_calls_comes_back_as_it_is(form):
    for text in ("", "Plain.", "1 < 2 and {braces}", "It's\n\ntwo lines"):
        assert tools.read_answer(form, text) == (text, ())
