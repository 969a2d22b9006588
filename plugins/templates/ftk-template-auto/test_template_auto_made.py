# ruff: noqa: E501 (a template is easier to read in one line)
"""Templates in the style of the wild, each with habits that published ones have, on generated conversations.

References: what transformers itself renders (``render_jinja_template``) for texts and prompts, and for each template what
it has around an answer, written down by hand: an answer trains exactly that. So no template is judged by what the code
under test makes of it.
"""

import json
from dataclasses import dataclass
from functools import cache

import pytest
from ftk import DataError, Media, Message, Text, ToolCall
from ftk_data import TemplateOptions, templates
from ftk_data.environment import render_marked
from ftk_data.templates import Template
from ftk_data.tools import HERMES
from ftk_data.tracing import trace
from ftk_template_auto.own import own
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers.utils.chat_template_utils import render_jinja_template

EOS = "</s>"
SPECIAL = {
    EOS: 2,
    "<s>": 1,
    "<|im_end|>": 3,
    "<|im_start|>": 4,
    "<|assistant|>": 5,
    "<|end|>": 6,
    "\n\n": 7,
    "</b>": 8,
    "<|fin|>": 9,
}
PARTS = (
    "", " ", "\n", "x", "Hi there", "  both ends \n", templates.PROBE, templates.PROBE + "7", templates.PROBE + "?", "e\u0301\u200d", "a\r\nb",
    "{{ x }}", "{% raw %}", "{# c #}", "\ue0f0\ue0f2", "\ue0f1", EOS, "<|im_end|>", "<|im_end|>\n", "<|im_start|>assistant\n",
    "[/INST]", "[INST] x [/INST]", "<|assistant|>", "<|end|>", "Assistant:", "user", "\x00", "ß" * 5000, "}}", "%}", "'", "\\n",
)  # fmt: skip
TEXTS = st.sampled_from(PARTS) | st.lists(st.sampled_from(PARTS), max_size=3).map("".join) | st.text(max_size=8)


class Tokenizer:
    special_tokens_map = {"bos_token": "<s>", "eos_token": EOS}  # noqa: RUF012 (as transformers has it)
    chat_template = None

    def get_added_vocab(self):
        return SPECIAL


@dataclass(frozen=True)
class Made:
    """lead, end: what an answer trains before and after its text. shown: its text as the template writes it.

    same: the row of the last answer is what transformers renders; False where history is rewritten. one_row: all
    answers share it. added: the template writes no stop token, so ``end`` holds one more than it does. header: what the
    prompt lacks in a template that ignores the flag. nonempty: the template leaves out turns without text.
    """

    source: str
    end: str = "<|im_end|>"
    lead: str = ""
    shown: object = str
    same: bool = True
    one_row: bool = True
    added: bool = False
    header: str = ""
    system: bool = True
    nonempty: bool = False


CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
PROMPT = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
WITHOUT_SYSTEM = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{% set lead = messages[0].content ~ '\n\n' %}"
    "{% set messages = messages[1:] %}{% else %}{% set lead = '' %}{% endif %}"
)
ANSWER = "{% for m in messages %}{% if m.role == 'assistant' %}"
OTHERS = "{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
HEAD, TAIL = "<|im_start|>assistant\n", "<|im_end|>\n"


def think(text):
    return "<think>\n\n</think>\n\n" + text


MADE = {
    "chatml": Made(CHATML + PROMPT),
    "generation block": Made(
        ANSWER + HEAD + "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}\n" + OTHERS + PROMPT
    ),
    "generation block with the header and more than the stop token": Made(
        ANSWER + "{% generation %}" + HEAD + "{{ m.content }}" + TAIL + "{% endgeneration %}" + OTHERS + PROMPT
    ),
    "generation block without the stop token": Made(
        ANSWER + HEAD + "{% generation %}{{ m.content }}{% endgeneration %}" + TAIL + OTHERS + PROMPT
    ),
    "generation block around the stop token only": Made(
        ANSWER + HEAD + "{{ m.content }}{% generation %}<|im_end|>{% endgeneration %}\n" + OTHERS + PROMPT
    ),
    "system into the first question, stripped": Made(
        WITHOUT_SYSTEM + "{% for m in messages %}{% if m.role == 'user' %}"
        "[INST] {{ (lead if loop.first else '') ~ m.content | trim }} [/INST]"
        "{% else %} {{ m.content | trim }}{{ eos_token }}{% endif %}{% endfor %}",
        lead=" ", end=EOS, shown=str.strip,
    ),
    "system into the last question": Made(
        WITHOUT_SYSTEM + "{% for m in messages %}{% if m.role == 'user' %}"
        "[INST]{{ (lead if loop.last else '') ~ m.content }}[/INST]"
        "{% else %}{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}",
        end=EOS, same=False, one_row=False,
    ),
    "turns numbered": Made(
        "{% for m in messages %}{{ loop.index }}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}{{ messages | length + 1 }}<|im_start|>assistant\n{% endif %}"
    ),
    "turns numbered from the end": Made(
        "{% for m in messages %}{{ loop.revindex }}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}0<|im_start|>assistant\n{% endif %}",
        same=False, one_row=False,
    ),
    "the number of turns": Made(
        "{{ messages | length }} turns\n" + CHATML + PROMPT, same=False, one_row=False,
    ),
    "default system": Made(
        "{% if messages[0].role != 'system' %}<|im_start|>system\nBe good.<|im_end|>\n{% endif %}" + CHATML + PROMPT
    ),
    "stripped": Made(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}" + PROMPT,
        shown=str.strip,
    ),
    "stripped on the left": Made(
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'].lstrip('\n') }}<|im_end|>\n{% endfor %}" + PROMPT,
        shown=lambda text: text.lstrip("\n"),
    ),
    "consecutive turns merged": Made(
        "{% set ns = namespace(role='') %}{% for m in messages %}{% if m.role != ns.role %}{% if ns.role %}<|im_end|>\n"
        "{% endif %}<|im_start|>{{ m.role }}\n{% else %}\n{% endif %}{{ m.content }}{% set ns.role = m.role %}"
        "{% if loop.last %}<|im_end|>\n{% endif %}{% endfor %}" + PROMPT
    ),
    "date and time": Made("{{ strftime_now('%H:%M:%S.%f') }}\n" + CHATML + PROMPT),
    "an empty thought in the last answer": Made(
        "{% set ns = namespace(last=-1) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}"
        "{% endif %}{% endfor %}" + ANSWER + HEAD
        + "{% if loop.index0 > ns.last %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}" + TAIL + OTHERS + PROMPT,
        lead=think(""), same=True, one_row=False,
    ),
    "no stop token": Made(
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}",
        end=EOS, added=True, one_row=False,
    ),
    "a stop token between turns only": Made(
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% if m.role == 'assistant' and not loop.last %}<|end|>"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}",
        end="<|end|>", added=True,
    ),
    "a header after every message": Made(
        "{% for m in messages %}{{ m.content }}<|end|>\n{% if m.role == 'assistant' %}<|user|>{% else %}<|assistant|>{% endif %}"
        "{% endfor %}",
        end="<|end|>",
    ),
    "always ends with a prompt": Made(CHATML + "{{ '<|im_start|>assistant\n' }}"),
    "the prompt opens a thought that conversations lack": Made(
        CHATML + "{% if add_generation_prompt %}" + HEAD + "<think>\n{% endif %}", header="-<think>\n"
    ),
    "the prompt opens a thought that answers close": Made(
        ANSWER + HEAD + "<think>\n\n</think>\n\n{{ m.content }}" + TAIL + OTHERS
        + "{% if add_generation_prompt %}" + HEAD + "<think>\n{% endif %}",
        lead="\n</think>\n\n",
    ),
    "another stop token in the last answer": Made(
        ANSWER + HEAD + "{{ m.content }}{{ '</s>' if loop.last else '<|im_end|>\n' }}" + OTHERS + PROMPT,
        end=EOS, one_row=False,
    ),
    "the end token after everything": Made(
        CHATML + "{% if add_generation_prompt %}<|im_start|>assistant\n{% else %}{{ eos_token }}{% endif %}"
    ),
    "no generation prompt": Made(CHATML, header=HEAD),
    "no generation prompt but a block": Made(
        ANSWER + HEAD + "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}\n" + OTHERS, header=HEAD
    ),
    "no header at all": Made(
        "{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}", end=EOS
    ),
    "lists of parts only": Made(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for p in m.content %}{{ p.text }}{% endfor %}<|im_end|>\n{% endfor %}" + PROMPT
    ),
    "macros and loop controls": Made(
        "{% macro turn(m) %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endmacro %}"
        "{% for m in messages %}{% if m.role == 'nobody' %}{% continue %}{% endif %}{{ turn(m) }}{% endfor %}" + PROMPT
    ),
    "the last turn without a line break": Made(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% if not loop.last %}\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}\n<|im_start|>assistant\n{% endif %}"
    ),
    "looks at the next turn": Made(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>"
        "{% if loop.nextitem is defined and loop.nextitem.role == 'user' %}\n\n{% else %}\n{% endif %}{% endfor %}" + PROMPT
    ),
    "written into a variable first": Made(
        "{% set ns = namespace(text='') %}{% for m in messages %}"
        "{% set ns.text = ns.text ~ '<|im_start|>' ~ m.role ~ '\n' ~ m.content ~ '<|im_end|>\n' %}{% endfor %}"
        "{{ ns.text }}" + PROMPT
    ),
    "the last four turns only": Made(
        "{% for m in messages[-4:] %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}" + PROMPT,
        same=False, one_row=False,
    ),
    "the system text goes when there is history": Made(
        "{% for m in messages %}{% if m.role != 'system' or messages | length < 4 %}"
        "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}" + PROMPT,
        same=False, one_row=False,
    ),
    "another prompt than header": Made(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n\n{% endif %}",
        header="-\n",
    ),
    "spaces and a line break around the stop token": Made(
        "{% for m in messages %}{{ m.role | upper }}: {{ m.content }} </s> \n{% endfor %}"
        "{% if add_generation_prompt %}ASSISTANT:{% endif %}",
        lead=" ", end=" " + EOS,
    ),
    "the question again after the answer": Made(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
        "{% if m.role == 'assistant' %}({{ messages[0].content }}){% endif %}{% endfor %}" + PROMPT
    ),
    "the number of turns so far after each": Made(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>[{{ loop.index }}]\n{% endfor %}" + PROMPT
    ),
    "marks around answers, and always a prompt": Made(
        "{% for m in messages %}{{ '<|im_start|>' ~ m.role }}{% if m.role == 'assistant' %}<|begin|>{{ m.content }}<|fin|></s>"
        "{% else %}\n{{ m.content }}<|end|>{% endif %}{% endfor %}<|im_start|>assistant",
        lead="<|begin|>", end="<|fin|></s>",
    ),
    "a text stop": Made(
        "{% for m in messages %}### {{ m.role }}\n{{ m.content }}\n### End\n{% endfor %}"
        "{% if add_generation_prompt %}### assistant\n{% endif %}",
        end="\n###",
    ),
    "refuses a system text": Made(
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}" + CHATML + PROMPT, system=False
    ),
    "indented": Made(
        """
        {%- for m in messages %}
            {%- if m.role == 'system' %}
                {{- 'S ' + m.content + '\n' }}
            {%- elif m.role == 'user' %}
                {{- 'U ' + m.content + '\n' }}
            {%- elif m.role == 'assistant' %}
                {{- 'A ' + m.content + eos_token + '\n' }}
            {%- endif %}
        {%- endfor %}
        {%- if add_generation_prompt %}
            {{- 'A ' }}
        {%- endif %}
        """,
        end=EOS, header="-        ",
    ),
}  # fmt: skip


@st.composite
def conversations(draw, system=True):
    turns = [Message("system", draw(TEXTS))] if system and draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        question = draw(TEXTS)
        answer = draw(st.just(question) | TEXTS)
        trained = draw(st.sampled_from([None, None, True, False]))
        turns += [
            Message("user", question),
            Message("assistant", answer, trained=trained, weight=draw(st.sampled_from([1.0, 0.5]))),
        ]
    return turns + ([Message("user", draw(TEXTS))] if draw(st.booleans()) else [])


@cache
def renderer(name):
    return own(MADE[name].source, Tokenizer(), TemplateOptions())


def reference(made, turns, generation=False):
    listed = "p in m.content" in made.source
    dicts = [
        {"role": turn.role, "content": [{"type": "text", "text": turn.content}] if listed else turn.content}
        for turn in turns
    ]
    texts, _ = render_jinja_template(
        [dicts], chat_template=made.source, add_generation_prompt=generation, bos_token="<s>", eos_token=EOS
    )
    return texts[0]


def prompt_of(made, turns):
    """What a row has before an answer."""
    text = reference(made, turns, generation=True)
    return text.removesuffix(made.header[1:]) if made.header.startswith("-") else text + made.header


def check(name, turns):
    made, template = MADE[name], renderer(name)
    if "%S" in made.source:
        return check_alike(template, turns)
    trained = [i for i, turn in enumerate(turns) if turn.role == "assistant" and turn.trained is not False]
    rows = template.render(turns)
    if not trained:
        assert [[segment[:2] for segment in row] for row in rows] == [[(reference(made, turns), False)]]
        return
    found = [(row[:i], row[i]) for row in rows for i, segment in enumerate(row) if segment.trained]
    assert len(found) == len(trained)
    for (before, segment), number in zip(found, trained, strict=True):
        assert "".join(one.text for one in before) == prompt_of(made, turns[:number])
        assert segment.text == made.lead + made.shown(turns[number].content) + made.end
        assert segment.weight == turns[number].weight
        if not made.header.startswith("-"):
            assert template.prompt_text(turns[:number]) == prompt_of(made, turns[:number])
        assert template.prompt(turns[:number]) == [(template.prompt_text(turns[:number]), False, 1.0, None, False)]
    if made.one_row:
        assert len(rows) == 1
    whole = reference(made, turns)
    text = "".join(segment.text for segment in rows[-1])
    if made.added and trained[-1] == len(turns) - 1:
        assert text == whole + made.end
    elif made.same and (made.one_row or trained[-1] == len(turns) - 1):
        assert text == whole
    for row in rows:
        assert all(one.text for one in row)


def check_alike(template, turns):
    """A prompt and its conversation see one clock, however fine it is."""
    trained = [turn for turn in turns if turn.role == "assistant" and turn.trained is not False]
    (row,) = template.render(turns)
    assert [segment.text for segment in row if segment.trained] == [turn.content + "<|im_end|>" for turn in trained]


@pytest.mark.parametrize("name", MADE)
def test_an_answer_follows_its_prompt_and_trains_itself_and_its_stop_token(name):
    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(conversations(MADE[name].system))
    @example([Message("user", "x"), Message("assistant", "x"), Message("user", "x"), Message("assistant", "x")])
    @example([Message("user", ""), Message("assistant", ""), Message("user", ""), Message("assistant", " ")])
    def holds(turns):
        check(name, turns)

    holds()


# One render for all turns

LOOKING = {
    "at the next turn by number": "{% for m in messages %}{{ m.content }}{% if loop.index < messages | length and "
    "messages[loop.index].role == 'user' %}|{% endif %};{% endfor %}",
    "at the last turn": "{% for m in messages %}{{ m.content }}{{ '!' if messages[-1].role == m.role }};{% endfor %}",
    "at how many are left": "{% for m in messages %}{{ loop.revindex0 }}{{ m.content }};{% endfor %}",
    "at the end in one branch": "{% for m in messages %}{{ m.content }}{% if m.role == 'user' and loop.last %}.{% endif %}"
    "{% endfor %}",
    "through a macro": "{% macro end(l) %}{{ '.' if l.last else ',' }}{% endmacro %}"
    "{% for m in messages %}{{ m.content }}{{ end(loop) }}{% endfor %}",
    "at all before": "{% for m in messages %}{{ m.role[0] }}{% endfor %}: {% for m in messages %}{{ m.content }};{% endfor %}",
    "at all of one role": "{% set asked = messages | selectattr('role', 'equalto', 'user') | list %}"
    "{% for m in messages %}{{ m.content }}{{ '.' if m == asked[-1] }};{% endfor %}",
    "at the first of one role, lazily": "{% set asked = messages | selectattr('role', 'equalto', 'assistant') %}"
    "{% for m in messages %}{% if loop.index == 2 %}{{ asked | map(attribute='content') | first }}{% endif %}"
    "{{ m.content }};{% endfor %}",
    "from the second on": "{{ messages[0].content }}>{% set messages = messages[1:] %}{% for m in messages %}{{ m.content }};"
    "{% endfor %}",
    "at two in turn": "{% for m in messages[1:][1:] %}{{ m.content }};{% endfor %}",
    "at a slice": "{% for m in messages[:2] %}{{ m.content }};{% endfor %}",
    "backwards": "{% for m in messages | reverse %}{{ m.content }};{% endfor %}",
    "at each from each": "{% for m in messages %}{{ m.content }}{% for n in messages %}{{ n.role[0] }}{% endfor %};{% endfor %}",
    "at what came before": "{% for m in messages %}{{ messages[loop.index0 - 1].role if not loop.first }}"
    "{{ loop.previtem.role if loop.previtem is defined }}{{ loop.changed(m.role) }}{{ loop.cycle('a', 'b') }}{{ m.content }};"
    "{% endfor %}",
    "at some only": "{% for m in messages if m.role != 'system' %}{{ loop.index }}{{ m.content }};{% endfor %}",
    "and stops": "{% for m in messages %}{% if loop.index > 3 %}{% break %}{% endif %}{{ m.content }};{% endfor %}",
    "and skips": "{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}{{ m.content }};{% endfor %}",
    "and remembers": "{% set ns = namespace(last='') %}{% for m in messages %}{{ m.content }};{% set ns.last = m.role %}"
    "{% endfor %}{{ ns.last }}",
    "and ends with the last": "{% for m in messages %}{{ m.content }};{% endfor %}{{ messages[-1].role if messages }}",
    "and ends with something else": "{% for m in messages %}{{ m.content }};{% endfor %}{{ bos_token ~ missing }}"
    "{% for t in tools or [1, 2] %}{{ t }}{% endfor %}",
    "and writes what it has captured": "{% for m in messages %}{% set text %}{{ m.content }};{% endset %}{{ text }}{% endfor %}",
    "and filters": "{% for m in messages %}{% filter upper %}{{ m.content }};{% endfilter %}{% endfor %}",
    "with blocks": "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %};{% endfor %}",
    "whether there are any": "{% if messages %}some {% endif %}{% for m in messages %}{{ m.content }};{% endfor %}",
    "whether it is a list": "{{ messages is sequence }}{{ messages is iterable }}{{ messages is mapping }}"
    "{% for m in messages %}{{ m.content }};{% endfor %}",
    "with another": "{% for m in messages + [{'role': 'x', 'content': 'y'}] %}{{ m.content }};{% endfor %}",
    "as text": "{% for m in messages %}{{ m.content }};{% endfor %}{{ messages }}",
    "whether it is the same": "{% for m in messages %}{{ m == messages[0] }}{{ m in messages }}{{ messages == [m] }};{% endfor %}",
    "with an outer loop's name": "{% for m in messages %}{% set outer = loop %}{% for n in [1, 2] %}{{ loop.last }}{{ outer.last }}"
    "{% endfor %};{% endfor %}",
}
ENDS = ("", "{% if add_generation_prompt %}A:{% endif %}", "{{ 'A:' if add_generation_prompt else eos_token }}")


@pytest.mark.parametrize("looks", LOOKING)
def test_what_a_trace_says_of_a_beginning_is_its_render(looks):
    """The cuts of a trace are places where nothing of what follows was known, however a template looks around."""

    @settings(max_examples=40, deadline=None, derandomize=True)
    @given(
        st.lists(
            st.builds(Message, st.sampled_from(["system", "user", "assistant"]), st.sampled_from(["", "a", "b c"])),
            max_size=5,
        ),
        st.sampled_from(ENDS),
    )
    def holds(turns, end):
        source = LOOKING[looks] + end
        template = Template(source, {"bos_token": "<s>", "eos_token": EOS})
        dicts, variables = template.dicts(turns), template.variables((), "unset")
        found = trace(source, dicts, variables)
        for num, cut in found.cuts.items() if found else ():
            for generation, rest in ((False, found.closing), (True, found.opening)):
                text, spans = render_marked(source, dicts[:num], **variables, add_generation_prompt=generation)
                assert found.text[:cut] + rest == text, (turns, num)
            assert [span for span in found.spans if span[0] < span[1] <= cut] == [
                span for span in spans if span[0] < span[1]
            ]

    holds()


@pytest.mark.parametrize(
    "name", ["chatml", "generation block", "default system", "macros and loop controls", "stripped"]
)
def test_one_render_is_enough_for_most(name, monkeypatch):
    template = renderer(name)
    turns = [Message(role, role) for role in ("user", "assistant") * 4]
    expected = template.render(turns)
    monkeypatch.setattr(templates, "render_marked", None)
    assert template.render(turns) == expected


# Reasoning and tools

THOUGHT = "{% set ns = namespace(last=-1) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
WITH_THOUGHT = (
    "{% if m.reasoning_content and loop.index0 > ns.last %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}"
)
REASONING = {
    "earlier thoughts go": (
        THOUGHT + ANSWER + HEAD + WITH_THOUGHT + "{{ m.content }}" + TAIL + OTHERS + PROMPT,
        HEAD, "<think>\nR{n}\n</think>\n\nA{n}<|im_end|>", False,
    ),
    "all thoughts stay": (
        ANSWER + HEAD + "<think>{{ m.reasoning }}</think>{{ m.content }}" + TAIL + OTHERS + PROMPT,
        HEAD, "<think>R{n}</think>A{n}<|im_end|>", True,
    ),
    "the prompt opens the thought that conversations lack": (
        ANSWER + HEAD + "{{ m.content.split('</think>')[-1].lstrip('\n') }}" + TAIL + OTHERS
        + "{% if add_generation_prompt %}{{ '" + HEAD.replace("\n", "\\n") + "<think>\\n' }}{% endif %}",
        HEAD + "<think>\n", "R{n}\n</think>\n\nA{n}<|im_end|>", False,
    ),
    "the switch opens or closes the thought": (
        ANSWER + HEAD + "</think>{{ m.content }}" + TAIL + OTHERS + "{% if add_generation_prompt %}" + HEAD
        + "{{ '<think>' if thinking else '</think>' }}{% endif %}",
        HEAD + "<think>", "R{n}</think>A{n}<|im_end|>", False,
    ),
    "the prompt has an empty thought": (
        THOUGHT + ANSWER + HEAD + "<think>{{ m.reasoning_content if loop.index0 > ns.last }}</think>{{ m.content }}" + TAIL + OTHERS
        + "{% if add_generation_prompt %}" + HEAD + "<think></think>{% endif %}",
        HEAD + "<think>", "R{n}</think>A{n}<|im_end|>", False,
    ),
    "its own marks": (
        ANSWER + HEAD + "{% if m.reasoning_content %}[THINK]{{ m.reasoning_content }}[/THINK]{% endif %}{{ m.content }}" + TAIL
        + OTHERS + PROMPT,
        HEAD, "[THINK]R{n}[/THINK]A{n}<|im_end|>", True,
    ),
    "knows none": (CHATML + PROMPT, HEAD, "<think>\nR{n}\n</think>\n\nA{n}<|im_end|>", True),
}  # fmt: skip


@pytest.mark.parametrize("name", REASONING)
def test_reasoning_is_trained_as_the_model_will_write_it_and_read_back(name):
    source, before, answer, one_row = REASONING[name]
    template = own(source, Tokenizer(), TemplateOptions())
    turns = [
        Message(role, f"{role[0].upper()}{n}", reasoning=f"R{n}" if role == "assistant" else None)
        for n in (1, 2)
        for role in ("user", "assistant")
    ]
    rows = template.render(turns)
    assert len(rows) == (1 if one_row else 2)
    found = [(row[i - 1].text, segment.text) for row in rows for i, segment in enumerate(row) if segment.trained]
    assert [trained for _, trained in found] == [answer.replace("{n}", str(n)) for n in (1, 2)]
    assert all(prompt.endswith(before) for prompt, _ in found)
    for (_, trained), turn in zip(found, turns[1::2], strict=True):
        assert template.read(trained) == turn
    if not one_row:
        assert "R1" not in "".join(segment.text for segment in rows[1])


def test_reasoning_that_the_answer_repeats_is_not_taken_for_shown():
    source = REASONING["the prompt opens the thought that conversations lack"][0]
    ((_, segment, _),) = own(source, Tokenizer(), TemplateOptions()).render(
        [Message("user", "?"), Message("assistant", "2 and 2", reasoning="2")]
    )
    assert segment.text == "2\n</think>\n\n2 and 2<|im_end|>"


def test_an_answer_is_cut_in_its_thought():
    opens = own(REASONING["the prompt opens the thought that conversations lack"][0], Tokenizer(), TemplateOptions())
    assert opens.read("Well, I") == Message("assistant", "", reasoning="Well, I")
    plain = own(REASONING["earlier thoughts go"][0], Tokenizer(), TemplateOptions())
    assert plain.read("<think>\nWell, I") == Message("assistant", "", reasoning="Well, I")
    assert plain.read("Close it with </think>.") == Message("assistant", "Close it with </think>.")


def calls(arguments):
    return (
        "{% macro answer(m) %}{{ m.content or '' }}{% for call in m.tool_calls or [] %}<tool_call>\n"
        '{"name": "{{ call.function.name }}", "arguments": {{ '
        + arguments
        + " }}}\n</tool_call>{% endfor %}{% endmacro %}"
    )


TURNS_WITH_TOOLS = (
    "{% for m in messages %}{% if m.role == 'tool' %}{% if messages[loop.index0 - 1].role != 'tool' %}<|im_start|>user\n{% endif %}"
    "({{ m.name }} {{ m.tool_call_id }}: {{ m.content }}){% if loop.last or messages[loop.index0 + 1].role != 'tool' %}<|im_end|>\n"
    "{% endif %}{% elif m.role == 'assistant' %}" + HEAD + "{{ answer(m) }}" + TAIL
    + "{% else %}<|im_start|>{{ m.role }}\n{% if tools and USER %}{{ tools | tojson }}\n{% endif %}{{ m.content }}<|im_end|>\n"
    "{% endif %}{% endfor %}" + PROMPT
)  # fmt: skip
TOOLS = ({"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}},)
STEPS = [
    Message("user", "Where?"),
    Message("assistant", tool_calls=(ToolCall("look", {"at": "é"}, "a"), ToolCall("look", {}, "b"))),
    Message("tool", "second", call_id="b"),
    Message("tool", "first", call_id="a"),
    Message("assistant", "There"),
    Message("user", "Sure?"),
    Message("assistant", "Yes"),
]
WITH_TOOLS = {
    "tools in the first question": (calls("call.function.arguments | tojson"), "loop.first", 1),
    "tools in the last question": (
        THOUGHT + calls("call.function.arguments | tojson"), "loop.index0 == ns.last", 2,
    ),
    "arguments as text": (calls("call.function.arguments + ''"), "loop.first", 1),
    "arguments as text, which Python would write otherwise": (calls("call.function.arguments"), "loop.first", 1),
    "calls only where there is no content": (
        calls("call.function.arguments + ''").replace("m.tool_calls or []", "(m.tool_calls if m.content is none else [])"),
        "loop.first", 1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WITH_TOOLS)
def test_calls_are_trained_and_results_are_not(name):
    start, user, num_rows = WITH_TOOLS[name]
    template = own(start + TURNS_WITH_TOOLS.replace("USER", user), Tokenizer(), TemplateOptions(), dialects=[HERMES])
    rows = template.render(STEPS, TOOLS)
    assert len(rows) == num_rows
    trained = [segment.text for row in rows for segment in row if segment.trained]
    written = [
        json.dumps({"name": "look", "arguments": call.arguments}, ensure_ascii=False) for call in STEPS[1].tool_calls
    ]
    assert trained == [
        "".join(f"<tool_call>\n{one}\n</tool_call>" for one in written) + "<|im_end|>",
        "There<|im_end|>",
        "Yes<|im_end|>",
    ]
    found = [("".join(one.text for one in row[:i])) for row in rows for i, segment in enumerate(row) if segment.trained]
    assert found == [template.prompt_text(STEPS[:i], TOOLS) for i in (1, 4, 6)]
    assert "<|im_start|>user\n(look b: second)(look a: first)<|im_end|>\n" in found[1]
    read = template.read(trained[0], TOOLS)
    assert [(call.name, call.arguments) for call in read.tool_calls] == [("look", {"at": "é"}), ("look", {})]


def test_results_without_an_id_answer_the_calls_in_order():
    template = own(calls("''") + TURNS_WITH_TOOLS.replace("USER", "false"), Tokenizer(), TemplateOptions())
    unnamed = [*STEPS[:2], Message("tool", "1"), Message("tool", "2", call_id="unknown"), Message("tool", "3")]
    text = template.render(unnamed)[0][-1].text
    assert "(look a: 1)(look b: 2)( : 3)" in text
    assert (
        "(look b: 2)(look a: 1)"
        in template.render([*STEPS[:2], Message("tool", "2", call_id="b"), Message("tool", "1")])[0][-1].text
    )


@pytest.mark.parametrize(
    ("source", "turns", "said"),
    [
        (CHATML + PROMPT, STEPS[:1], "leaves out the tools"),
        ("{{ tools }}" + CHATML + PROMPT, STEPS, "leaves out the call of look"),
        ("{% if m %}{% endif %}{{ tools }}{% for m in messages %}{% if m.content %}{{ m.content }}</s>{% endif %}{% endfor %}",
         [STEPS[0], Message("assistant", "")], "leaves out turn 2"),
        ("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}{{ tools }}",
         [STEPS[0], Message("assistant", "x")], "leaves out turn 2"),
        ("{{ tools }}{% for m in messages %}{{ m.content }}{{ m.content }}</s>{% endfor %}",
         [STEPS[0], Message("assistant", "xy")], "repeats it"),
    ],
)  # fmt: skip
def test_what_a_template_leaves_out_is_said(source, turns, said):
    template = own(source, Tokenizer(), TemplateOptions())
    with pytest.raises(DataError, match=said):
        template.render(turns, TOOLS)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{{ raise_exception('Roles must\n  alternate!') }}", "refuses this conversation: Roles must alternate!"),
        (
            "{{ date_string.upper() }}",
            "needs something that this conversation does not give: 'date_string' is undefined",
        ),
        ("{{ messages[0].content + 1 }}", "cannot write this conversation: TypeError: can only concatenate str"),
        ("{{ messages[0]['content'].nothing.more }}", "does not give: 'str object' has no attribute 'nothing'"),
        ("{{ 1 // 0 }}", "cannot write this conversation: ZeroDivisionError"),
        ("{{ messages.append(1) }}", "cannot write this conversation: SecurityError"),
        ("{{ messages[5].content }}", "does not give"),
    ],
)
def test_a_template_that_fails_is_told_in_one_line_with_its_own_words(source, said):
    template = own(source, Tokenizer(), TemplateOptions())
    for give in (template.prompt_text, template.render):
        with pytest.raises(DataError) as refused:
            give([Message("user", "Hi"), Message("assistant", "Ho")])
        assert said in str(refused.value)
        assert str(refused.value).startswith("the chat template ")
        assert "\n" not in str(refused.value)


def test_a_conversation_may_begin_with_an_answer():
    template = own(
        "{{ raise_exception('ask first') if not messages }}" + CHATML + PROMPT, Tokenizer(), TemplateOptions()
    )
    (row,) = template.render([Message("assistant", "Hi"), Message("user", "Ho"), Message("assistant", "Ha")])
    assert [segment.text for segment in row if segment.trained] == ["Hi<|im_end|>", "Ha<|im_end|>"]
    assert row[0].text == HEAD


def test_of_two_answers_that_the_template_merges_each_follows_what_is_sent_for_it():
    template = renderer("consecutive turns merged")
    turns = [Message("user", "Q"), Message("assistant", "A"), Message("assistant", "B")]
    (row,) = template.render(turns)
    assert [segment.text for segment in row if segment.trained] == ["A<|im_end|>", "B<|im_end|>"]
    assert "".join(segment.text for segment in row[:3]) == template.prompt_text(turns[:2])


def test_a_template_that_takes_texts_only_gets_parts_as_a_text_and_refuses_media():
    template = renderer("chatml")
    assert template.prompt_text([Message("user", (Text("a"), Text("b")))]) == template.prompt_text(
        [Message("user", "ab")]
    )
    with pytest.raises(DataError, match="the chat template leaves out the image"):
        template.prompt_text([Message("user", (Text("a"), Media("image", "x")))])
    with pytest.raises(DataError, match="the chat template leaves out the video"):
        renderer("lists of parts only").prompt_text([Message("user", (Text("a"), Media("video", "x")))])


def test_a_block_that_begins_after_what_the_template_writes_first_is_followed():
    source = ANSWER + HEAD + "<note>{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}\n" + OTHERS + PROMPT
    ((prompt, answer),) = own(source, Tokenizer(), TemplateOptions()).render(
        [Message("user", "Q"), Message("assistant", "A")]
    )
    assert prompt.text.endswith(HEAD + "<note>")
    assert answer.text == "A<|im_end|>"


def test_a_header_that_only_answers_to_results_get_is_not_trained():
    source = (
        "{% for m in messages %}{% if m.role == 'tool' %}<result>{{ m.content }}</result>{% else %}"
        "<|im_start|>{{ m.role }}\n{{ m.content }}{% for c in m.tool_calls or [] %}<call>{{ c.function.name }}</call>{% endfor %}"
        "<|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt and messages[-1].role != 'tool' %}"
        + HEAD
        + "{% endif %}"
    ).replace(HEAD, "{{ '<|im_start|>assistant\\n' }}")
    template = own(source, Tokenizer(), TemplateOptions())
    turns = [*STEPS[:1], Message("assistant", tool_calls=(ToolCall("look", {}),)), Message("tool", "7")]
    for answer in ("Here", HEAD):
        (row,) = template.render([*turns, Message("assistant", answer)])
        assert row[3].text == answer + "<|im_end|>"
        assert row[2].text.endswith("</result>" + HEAD)
    (row,) = template.render([*STEPS[:1], Message("assistant", HEAD)])
    assert row[1].text == HEAD + "<|im_end|>"


def test_a_call_ends_where_its_stop_token_does_also_before_the_next_prompt():
    source = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% for c in m.tool_calls or [] %}<call>{{ c.function.name }}"
        "</call>{% endfor %}<|im_end|>\n{% endfor %}"
        "{{ '<|im_start|>assistant\\n' }}"
    )
    (row,) = own(source, Tokenizer(), TemplateOptions()).render(STEPS[:2])
    assert [segment.text for segment in row if segment.trained] == ["<call>look</call><call>look</call><|im_end|>"]
