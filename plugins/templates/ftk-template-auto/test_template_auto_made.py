# ruff: noqa: E501 (a template is easier to read in one line)
"""Templates in the style of the wild, each with habits that published ones have, on generated conversations.

References: what transformers itself renders (``render_jinja_template``) for texts and prompts, and for each template what
it has around an answer, written down by hand: an answer trains exactly that. So no template is judged by what the code
under test makes of it.
"""

from dataclasses import dataclass
from functools import cache

import pytest
from ftk import Message
from ftk_data import TemplateOptions
from ftk_template_auto.own import own
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers.utils.chat_template_utils import render_jinja_template

EOS = "</s>"
SPECIAL = {EOS: 2, "<s>": 1, "<|im_end|>": 3, "<|im_start|>": 4, "<|assistant|>": 5, "<|end|>": 6, "\n\n": 7, "</b>": 8}
PARTS = (
    "", " ", "\n", "x", "Hi there", "  both ends \n", "probe7319", "probe73197", "probe7319?", "e\u0301\u200d", "a\r\nb",
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
