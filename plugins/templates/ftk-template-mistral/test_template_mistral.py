"""Reference: the published templates' renders of six Mistral files (golden/renders.jsonl), and the strings that
LLaMA-Factory writes in the mistral dialect (golden/llamafactory_cases.jsonl)."""

import json
from pathlib import Path

import ftk_template_mistral
import pytest
from ftk import DataError, Media, Message, Text, ToolCall
from ftk_data.environment import compiled
from ftk_data.tools import read_answer, write_answer
from hypothesis import assume, given, settings
from hypothesis import strategies as st

CASES = Path(__file__).parents[4] / "shared" / "golden" / "llamafactory_cases.jsonl"
SPECS = {spec.name: spec for spec in ftk_template_mistral.ftk_chat_templates()}
FORMATS = {form.name: form for form in ftk_template_mistral.ftk_tool_formats()}
TOOLS = ({"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}},)
CALL = Message("assistant", tool_calls=(ToolCall("look", {"at": 1}),))
TWO_TURNS = [
    Message("system", "Be"),
    Message("user", "Hi"),
    Message("assistant", "Ho"),
    Message("user", "Ha"),
    Message("assistant", "He"),
]
TOKENS = ("<s>", "</s>")


SKIPPED = {
    "mistral-v1": lambda case: False,
    "mistral-v3": lambda case: "[dict]" in case["case"],  # it writes &#34; for the quotes of parsed arguments
    "mistral-7b-v0.3-hf": lambda case: False,
    "mistral-small-3.2": lambda case: False,
    "pixtral": lambda case: False,
    "devstral": lambda case: False,
}


@pytest.mark.parametrize(
    ("family", "name", "num"),
    [
        ("mistral-v1", "mistral_v1", 30),
        ("mistral-v3", "mistral", 36),
        ("mistral-7b-v0.3-hf", "mistral_v3_hf", 42),
        ("mistral-small-3.2", "mistral_small", 48),
        ("pixtral", "pixtral", 36),
        ("devstral", "devstral", 42),
    ],
)
def test_it_renders_what_the_published_template_renders(check_published, family, name, num):
    assert check_published(SPECS[name], family, SKIPPED[family]) == num


@pytest.mark.parametrize(
    ("name", "trained"),
    [
        ("mistral", [" Ho</s>", " He</s>"]),
        ("mistral_v1", [" Ho</s>", " He</s>"]),
        ("mistral_small", ["Ho</s>", "He</s>"]),
        ("devstral", ["Ho</s>", "He</s>"]),
        ("pixtral", ["Ho</s>", "He</s>"]),
        ("ministral", ["Ho</s>", "He</s>"]),
        ("ministral3", ["Ho</s>", "He</s>"]),
    ],
)
def test_answers_are_trained_with_their_stop_token_and_follow_their_prompt(make_renderer, name, trained):
    made = make_renderer(SPECS[name], *TOKENS)
    rows = made.render(TWO_TURNS)
    assert [segment.text for row in rows for segment in row if segment.trained] == trained
    assert rows[0][0].text == made.prompt_text(TWO_TURNS[:2])
    last = "".join(segment.text for segment in rows[-1])
    assert last == made.prompt_text(TWO_TURNS[:4]) + trained[-1]
    assert made.stop == ("</s>",)


@pytest.mark.parametrize(("name", "num"), [("mistral", 2), ("pixtral", 2), ("mistral_v1", 1), ("mistral_small", 1)])
def test_a_system_text_that_moves_to_the_last_question_gives_each_answer_a_row(make_renderer, name, num):
    assert len(make_renderer(SPECS[name], *TOKENS).render(TWO_TURNS)) == num
    assert len(make_renderer(SPECS[name], *TOKENS).render(TWO_TURNS[1:])) == 1


def test_pixtral_is_trained_with_the_system_text_though_it_goes_once_the_answer_is_there(make_renderer):
    rows = make_renderer(SPECS["pixtral"], *TOKENS).render(TWO_TURNS)
    assert ["".join(segment.text for segment in row) for row in rows] == [
        "<s>[INST]Be\n\nHi[/INST]Ho</s>",
        "<s>[INST]Hi[/INST]Ho</s>[INST]Be\n\nHa[/INST]He</s>",
    ]


def test_the_older_file_of_v3_trains_its_space_and_leaves_a_system_text_out_with_a_word(make_renderer, caplog):
    made = make_renderer(SPECS["mistral_v3_hf"], *TOKENS)
    (row,) = made.render(TWO_TURNS[1:])
    assert [segment.text for segment in row if segment.trained] == [" Ho </s>", " He </s>"]
    assert made.render(TWO_TURNS) == made.render(TWO_TURNS) == [row]
    assert caplog.text.count("leaves the system text out or changes it: 'Be'") == 1
    with pytest.raises(DataError, match="no place for a system text"):
        make_renderer(SPECS["mistral_v3_hf"], *TOKENS, default_system="Be").prompt_text(TWO_TURNS[1:2])


@pytest.mark.parametrize("name", ["mistral", "mistral_v1", "mistral_small", "devstral", "pixtral", "ministral"])
def test_default_system_takes_the_place_of_the_family_s_own(make_renderer, name):
    text = make_renderer(SPECS[name], *TOKENS, default_system="Say no").prompt_text(TWO_TURNS[1:2])
    assert "Say no" in text
    assert "Mistral AI" not in text


@pytest.mark.parametrize(
    ("name", "answer", "result"),
    [
        ("mistral", '[TOOL_CALLS] [{"name": "look", "arguments": {"at": 1}, "id": "call00001"}]</s>',
         '[TOOL_RESULTS] {"content": 7, "call_id": "call00001"}[/TOOL_RESULTS]'),
        ("mistral_v3_hf", ' [TOOL_CALLS] [{"name": "look", "arguments": {"at": 1}, "id": "call00001"}] </s>',
         ' [TOOL_RESULTS] {"call_id": "call00001", "content": 7} [/TOOL_RESULTS] '),
        ("mistral_small", '[TOOL_CALLS]look[CALL_ID]call00001[ARGS]{"at": 1}</s>',
         "[TOOL_RESULTS]call00001[TOOL_CONTENT]7[/TOOL_RESULTS]"),
        ("devstral", '[TOOL_CALLS]look[ARGS]{"at": 1}</s>', "[TOOL_RESULTS]7[/TOOL_RESULTS]"),
        ("ministral", '[TOOL_CALLS][{"name": "look", "arguments": {"at": 1}}]</s>',
         '[TOOL_RESULTS]{"content": 7}[/TOOL_RESULTS]'),
    ],
)  # fmt: skip
def test_a_call_is_trained_and_read_back_and_its_result_is_not_trained(make_renderer, name, answer, result):
    turns = [Message("user", "?"), CALL, Message("tool", "7"), Message("assistant", "Done")]
    made = make_renderer(SPECS[name], *TOKENS)
    (row,) = made.render(turns, TOOLS)
    assert [segment.trained for segment in row] == [False, True, False, True]
    assert (row[1].text, row[2].text) == (answer, result)
    (call,) = read_answer(SPECS[name].load("tool_format"), answer.removesuffix("</s>").strip())[1]
    assert (call.name, call.arguments) == ("look", {"at": 1})
    assert made.prompt_text(turns[:3], TOOLS) == "".join(segment.text for segment in row[:3])


def test_tools_stand_at_the_last_question_and_the_row_before_does_not_hold_the_new_one(make_renderer):
    rows = make_renderer(SPECS["mistral"], *TOKENS).render(TWO_TURNS[1:], TOOLS)
    assert len(rows) == 2
    assert rows[1][0].text.startswith("<s>[INST] Hi[/INST] Ho</s>[AVAILABLE_TOOLS] [")


@pytest.mark.parametrize(
    ("name", "turns", "why"),
    [
        ("mistral", [Message("assistant", "Wait", tool_calls=CALL.tool_calls)], "no text beside its calls"),
        ("mistral", [Message("assistant", tool_calls=(ToolCall("look", {}, "call_1"),))], "nine letters or digits"),
        ("mistral_small", [Message("assistant", tool_calls=(ToolCall("look", {}, "call_1"),))], "nine letters"),
        ("mistral", [Message("assistant", "")], "has a text or calls"),
        ("mistral", [Message("assistant", "a"), Message("assistant", "b")], "a turn of assistant has no place"),
        ("mistral", [Message("critic", "a")], "a turn of critic has no place"),
        ("mistral_v1", [CALL], "knows neither tools"),
        ("pixtral", [CALL], "knows neither tools"),
        ("devstral", [Message("assistant", "[TOOL_CALLS]", tool_calls=CALL.tool_calls)], "must not hold"),
        ("devstral", [Message("assistant", tool_calls=(ToolCall("lo[ok", {}),))], "must not hold"),
        ("mistral", [Message("assistant", (Media("image", "a.png"),))], "no place for a image"),
    ],
)
def test_what_the_family_cannot_write_is_refused(make_renderer, name, turns, why):
    with pytest.raises(DataError, match=why):
        make_renderer(SPECS[name], *TOKENS).render([Message("user", "?"), *turns])


@pytest.mark.parametrize("name", ["mistral_v1", "pixtral"])
def test_tools_that_the_template_would_leave_out_are_refused(make_renderer, name):
    with pytest.raises(DataError, match="leaves out the tools"):
        make_renderer(SPECS[name], *TOKENS).prompt_text([Message("user", "?")], TOOLS)


def test_questions_in_a_row_are_one(make_renderer):
    turns = [Message("system", "Be"), Message("user", "a"), Message("user", "b")]
    assert make_renderer(SPECS["mistral"], *TOKENS).prompt_text(turns) == "<s>[INST] Be\n\na\n\nb[/INST]"
    assert make_renderer(SPECS["mistral_v1"], *TOKENS).prompt_text(turns) == "<s> [INST] Be\n\na\n\nb [/INST]"


@pytest.mark.parametrize("name", [name for name, spec in SPECS.items() if spec.media])
def test_an_image_is_its_mark(make_renderer, name):
    content = (Text("a"), Media("image", "x.png"), Text("b"))
    text = make_renderer(SPECS[name], *TOKENS).prompt_text([Message("user", content)])
    assert text.endswith("[INST]a[IMG]b[/INST]")
    assert SPECS[name].media == {"image": "[IMG]"}


def test_ministral_describes_tools_before_the_question_as_llamafactory_does(make_renderer):
    """Section 4 of the reference: the tools follow the system text inside the first question."""
    made = make_renderer(SPECS["ministral"], *TOKENS)
    described = "[AVAILABLE_TOOLS] [" + json.dumps(TOOLS[0]) + "][/AVAILABLE_TOOLS]"
    assert made.prompt_text([Message("user", "?")], TOOLS) == f"<s>[INST]{described}\n\n?[/INST]"
    assert made.prompt_text(TWO_TURNS[:2], TOOLS) == f"<s>[INST]Be{described}\n\nHi[/INST]"


def test_the_mistral_dialect_is_llamafactory_s():
    if not CASES.exists():
        pytest.skip(f"{CASES} is not there")
    compared = 0
    form = FORMATS["mistral"]
    for case in map(json.loads, CASES.open(encoding="utf-8")):
        if case.get("tool_format") != "mistral" or not case["input"] or "<think>" in str(case["input"]):
            continue  # no tools write nothing; reasoning is the template's, not the dialect's
        if case["kind"] == "tool_formatter":
            made = compiled(form.system).render(system=None, tools=case["input"])
            assert [made] == case["expected"]
        elif case["kind"] == "function_formatter":
            listed = json.loads(case["input"])
            calls = [
                ToolCall(one["name"], one["arguments"]) for one in (listed if isinstance(listed, list) else [listed])
            ]
            # there the mark is the template's
            assert [write_answer(form, "", calls).removeprefix("[TOOL_CALLS] ")] == case["expected"]
        else:
            assert read_answer(form, case["input"]) == (case["expected"], ())
        compared += 1
    assert compared == 5


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
marks = st.sampled_from(["[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "]", '"', "\n", "12", "look", "</s>"])
texts = st.lists(marks | st.text(max_size=5), max_size=4).map("".join)
arguments = st.dictionaries(texts, json_values | texts, max_size=3)
calls = st.lists(st.builds(ToolCall, texts | st.just("look"), arguments), min_size=1, max_size=3)


@pytest.mark.parametrize("name", sorted(FORMATS))
@settings(max_examples=60, deadline=None)
@given(content=texts, made=calls)
def test_what_a_dialect_writes_it_reads_back(name, content, made):
    try:
        written = write_answer(FORMATS[name], content, made)
    except DataError:
        spoken = [content] if name in ("mistral", "ministral") else [content, *(call.name for call in made)]
        assert "[TOOL_CALLS]" in content or any("[" in one or "]" in one or one.strip() != one for one in spoken)
        assume(False)
    read, again = read_answer(FORMATS[name], written)
    assert read == content
    assert [(call.name, call.arguments) for call in again] == [(call.name, call.arguments) for call in made]


@pytest.mark.parametrize("name", sorted(FORMATS))
@pytest.mark.parametrize(
    "text", ["", "Hi", "[TOOL_CALLS]", "[TOOL_CALLS]look", "[TOOL_CALLS][ARGS]1", '[TOOL_CALLS] [{"a": 1}]']
)
def test_text_without_whole_calls_comes_back_as_it_is(name, text):
    assert read_answer(FORMATS[name], text) == (text, ())
