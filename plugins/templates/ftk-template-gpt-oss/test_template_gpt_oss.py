"""Reference: the published template of gpt-oss, its renders (golden/renders.jsonl), and the file itself for more
schemas than those renders have (golden/templates/gpt_oss.jinja)."""

from pathlib import Path

import ftk_template_gpt_oss
import pytest
from ftk import DataError, Message, ToolCall
from ftk_data import TemplateOptions
from ftk_data.environment import render_marked
from ftk_data.rendering import declared
from ftk_data.tools import read_answer, write_answer
from ftk_template_gpt_oss.tools import GPT_OSS
from hypothesis import given
from hypothesis import strategies as st

PUBLISHED = Path(__file__).parents[4] / "shared" / "golden" / "templates" / "gpt_oss.jinja"
(SPEC,) = ftk_template_gpt_oss.ftk_chat_templates()
TOOLS = ({"type": "function", "function": {"name": "look", "description": "Look.", "parameters": {"type": "object"}}},)
HISTORY = [
    Message("user", "1+1?"),
    Message("assistant", "2", reasoning="Add."),
    Message("user", "2+2?"),
    Message("assistant", "4", reasoning="Double."),
]
LOOKED = [
    Message("user", "?"),
    Message("assistant", reasoning="Look.", tool_calls=(ToolCall("look", {"at": 1}),)),
    Message("tool", "seen"),
    Message("assistant", "Done"),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(["a", "b_c", "d"])
LEAVES = st.fixed_dictionaries(
    {"type": st.sampled_from(["string", "number", "integer", "boolean", "null", "object", ["string", "null"]])},
    optional={
        "description": st.just("What."),
        "nullable": st.booleans(),
        "enum": st.just(["x", "y"]),
        "default": st.sampled_from(["x", "y"]),
    },
)
SCHEMAS = st.recursive(
    LEAVES | st.just({}),
    lambda inner: (
        st.fixed_dictionaries({"type": st.just("array")}, optional={"items": inner, "nullable": st.booleans()})
        | st.fixed_dictionaries({"oneOf": st.lists(inner, min_size=1, max_size=3)})
        | st.fixed_dictionaries(
            {"type": st.just("object"), "properties": st.dictionaries(NAMES, inner, max_size=3)},
            optional={"required": st.just(["a"])},
        )
    ),
    max_leaves=6,
)


class Tokenizer:
    special_tokens_map = {"bos_token": "<|startoftext|>", "eos_token": "<|return|>"}  # noqa: RUF012 (as transformers)

    def get_added_vocab(self):
        return {"<|return|>": 1, "<|call|>": 2, "<|end|>": 3, "<|start|>": 4}


def renderer(**options):
    given = {"thinking": options["enable_thinking"]} if "enable_thinking" in options else {}
    return declared(SPEC, Tokenizer(), TemplateOptions(**options), **given)


def answers_of(rows):
    """(all that comes before it, text) of each trained answer."""
    return [
        ("".join(before.text for before in row[:i]), one.text)
        for row in rows
        for i, one in enumerate(row)
        if one.trained
    ]


def is_left_out(case):
    # the second of two calls, without a word
    return "tool_call_parallel" in case["case"]


def test_it_renders_what_the_published_template_renders(check_published):
    assert check_published(SPEC, "gpt_oss", is_left_out) == 42


@given(st.dictionaries(NAMES, SCHEMAS, max_size=3))
def test_it_writes_any_schema_as_the_published_template_does(properties):
    if not PUBLISHED.exists():
        pytest.skip(f"{PUBLISHED} is not there")
    parameters = {"type": "object", "properties": properties, "required": ["a", "d"]}
    tool = {"type": "function", "function": {"name": "f", "description": "Does.", "parameters": parameters}}
    asked = [{"role": "user", "content": "?"}]
    texts = [
        render_marked(source, asked, tools=[tool], add_generation_prompt=True)[0]
        for source in (PUBLISHED.read_text(encoding="utf-8"), renderer().source)
    ]
    assert texts[0] == texts[1]


def test_each_final_answer_is_trained_with_its_thought_in_a_row_of_its_own():
    made = renderer()
    first, second = answers_of(made.render(HISTORY))
    assert [first[0], second[0]] == [made.prompt_text(HISTORY[:1]), made.prompt_text(HISTORY[:3])]
    assert second[1] == (
        "<|channel|>analysis<|message|>Double.<|end|><|start|>assistant<|channel|>final<|message|>4<|return|>"
    )
    assert "<|channel|>final<|message|>2<|end|>" in second[0]
    assert "Add." not in second[0]
    assert made.stop == ("<|return|>", "<|call|>")


def test_without_thinking_the_prompt_opens_the_final_channel():
    made = renderer(enable_thinking=False)
    first, second = answers_of(made.render(HISTORY))
    assert (first[1], second[1]) == ("2<|return|>", "4<|return|>")
    assert [first[0], second[0]] == [made.prompt_text(HISTORY[:1]), made.prompt_text(HISTORY[:3])]


def test_a_call_is_trained_up_to_its_own_stop_token():
    made = renderer()
    rows = made.render(LOOKED, TOOLS)
    assert len(rows) == 1
    call, answer = answers_of(rows)
    assert call == (
        made.prompt_text(LOOKED[:1], TOOLS),
        "<|channel|>analysis<|message|>Look.<|end|>"
        '<|start|>assistant to=functions.look<|channel|>commentary json<|message|>{"at": 1}<|call|>',
    )
    assert answer == (made.prompt_text(LOOKED[:3], TOOLS), "<|channel|>final<|message|>Done<|return|>")


@pytest.mark.parametrize(
    ("turns", "error"),
    [
        ([LOOKED[0], Message("assistant", tool_calls=(ToolCall("look", {}),) * 2)], "one call a turn"),
        ([LOOKED[0], LOOKED[2]], "a tool that nobody called"),
        ([LOOKED[0], Message("assistant", "<|channel|>final<|message|>Done")], "holds <|channel|>"),
    ],
)
def test_what_the_family_cannot_write_is_refused(turns, error):
    with pytest.raises(DataError, match=error.replace("|", r"\|")):
        renderer().render(turns, TOOLS)


@given(
    st.text().filter(lambda text: "<|" not in text),
    st.from_regex(r"[\w.-]+", fullmatch=True),
    st.dictionaries(st.text(), JSON, max_size=3),
)
def test_a_call_is_read_back_as_it_was_written(content, name, arguments):
    calls = (ToolCall(name, arguments),)
    assert read_answer(GPT_OSS, write_answer(GPT_OSS, content, calls)) == (content, calls)


def test_what_cannot_be_read_back_is_refused():
    call = ToolCall("look", {"at": "<|message|>{}<|call|>"})
    assert read_answer(GPT_OSS, write_answer(GPT_OSS, "a < b", (call,))) == ("a < b", (call,))
    with pytest.raises(DataError, match="one call a turn"):
        write_answer(GPT_OSS, "", (call, call))
    for content, name in (("<|end|>", "look"), ("", "look<|message|>"), ("", "")):
        with pytest.raises(DataError, match="control token"):
            write_answer(GPT_OSS, content, (ToolCall(name, {}),))


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ('<|channel|>commentary to=functions.look <|constrain|>json<|message|>{"at": 1}<|call|>', ""),
        (
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary to=functions.look "
            '<|constrain|>json<|message|>{"at": 1}',
            "Hm.",
        ),
    ],
)
def test_a_call_is_read_in_the_order_of_the_models(text, content):
    assert read_answer(GPT_OSS, text) == (content, (ToolCall("look", {"at": 1}),))


def test_an_answer_without_a_call_is_left_as_it_is():
    for text in ("<|channel|>final<|message|>Done", " to=functions.look<|channel|>commentary json<|message|>{"):
        assert read_answer(GPT_OSS, text) == (text, ())


def test_the_dialect_tells_of_tools_in_other_templates():
    from ftk_data.environment import compiled

    text = compiled(GPT_OSS.system).render(system="Be", tools=list(TOOLS))
    assert text.startswith("Be\n\n# Tools\n\n## functions\n\nnamespace functions {\n\n// Look.\ntype look = () => any;")
