"""Conversations that hypothesis mangles, through every installed template in every stage: rows, or a reason by row.

Reference: a count, as in ``test_robustness.py``, whose ``FTK_ROBUSTNESS_ROWS`` counts here for each template: four in
ten as conversations, two in ten as pairs, feedback and prompts each.
"""

import copy
import os

import ftk
import pytest
from ftk.registry import Registry
from ftk_data.rows import build_chat, build_feedback, build_pairs, build_prompts
from hypothesis import strategies as st

TEMPLATES = Registry.discover().specs("template")
NUM = int(os.environ.get("FTK_ROBUSTNESS_ROWS", "30"))
BUILD = {"chat": build_chat, "pairs": build_pairs, "feedback": build_feedback, "prompts": build_prompts}
SHARES = {"chat": 0.4, "pairs": 0.2, "feedback": 0.2, "prompts": 0.2}
GROUPS = 8
FLAGS = ({}, {"mask_history": True}, {"train_on_prompt": True})
POLICIES = ("truncate", "drop", "split")

CALLS = [{"name": "f", "arguments": {"a": [1, "x"]}}, {"name": "f", "arguments": {}, "id": "abcdef123"}]
TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"properties": {}}}}
CONVERSATIONS = [
    {"messages": [{"role": "user", "content": "Say one"}, {"role": "assistant", "content": "one"}]},
    {"messages": [{"role": "system", "content": "be"}, {"role": "user", "content": "Say"},
                  {"role": "assistant", "content": "one", "reasoning": "why"}, {"role": "user", "content": "two"},
                  {"role": "assistant", "content": "two", "weight": 0.5}]},
    {"messages": [{"role": "user", "content": "Say"}, {"role": "assistant", "tool_calls": CALLS[:1]},
                  {"role": "tool", "content": "3"}, {"role": "assistant", "content": "three"}],
     "tools": [TOOL]},
    {"messages": [{"role": "user", "content": ["Say ", "one"]}, {"role": "assistant", "tool_calls": CALLS},
                  {"role": "tool", "content": "3"}, {"role": "tool", "content": "4"}], "tools": [TOOL]},
    {"messages": [{"role": "user", "content": ["Look at ", ["image", "no.png"]]},
                  {"role": "assistant", "content": "one"}]},
]  # fmt: skip


@pytest.fixture(scope="session")
def conversations(words):
    """A strategy: conversations with turns dropped, doubled, moved or in other roles, and other words in them."""

    @st.composite
    def mangled(draw):
        row = copy.deepcopy(draw(st.sampled_from(CONVERSATIONS)))
        turns = row["messages"]
        for _ in range(draw(st.integers(0, 4)) if turns else 0):
            if not turns:
                break
            place = draw(st.integers(0, len(turns) - 1))
            how = draw(st.sampled_from(["drop", "double", "move", "role", "words", "words", "reasoning", "flag"]))
            if how == "drop":
                del turns[place]
            elif how == "double":
                turns.insert(place, copy.deepcopy(turns[place]))
            elif how == "move":
                turns.append(turns.pop(place))
            elif how == "role":
                turns[place]["role"] = draw(st.sampled_from(["system", "user", "assistant", "tool"]))
            elif how == "flag":
                turns[place]["trained"] = draw(st.booleans())
            else:
                key = "content" if how == "words" else "reasoning"
                turns[place][key] = draw(st.sampled_from([*words, "long " * 3000]) | st.text(max_size=20))
        return row

    return mangled()


def as_kind(kind, row, number):
    """The conversation as an example of a kind; the last answer is what is preferred or liked."""
    if kind == "pairs":
        before, last = row["messages"][:-1], row["messages"][-1:]
        return {**row, "messages": before, "chosen": last, "rejected": [{"role": "assistant", "content": "no"}]}
    return {**row, "desirable": number % 2 == 0} if kind == "feedback" else row


@pytest.fixture
def with_template(tokenizer, monkeypatch):
    """A tokenizer that brings a chat template of its own, for the templates that take it."""
    source = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{{ m.tool_calls | default('') }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    monkeypatch.setattr(tokenizer, "chat_template", source)
    return tokenizer


@pytest.mark.parametrize("kind", BUILD)
@pytest.mark.parametrize("group", range(GROUPS))
def test_every_mangled_conversation_is_rows_or_a_reason_with_every_template(
    group, kind, conversations, generated, make_example_run, report, with_template, monkeypatch
):
    monkeypatch.setattr(with_template, "split_special_tokens", group % 2 == 1)
    num = max(4, round(NUM * SHARES[kind]))
    rows = [CONVERSATIONS[0], *generated(conversations, num - 2), CONVERSATIONS[0]]
    rows = [as_kind(kind, row, number) for number, row in enumerate(rows)]
    tried = 0
    for place, name in enumerate(list(TEMPLATES)[group::GROUPS]):
        chosen = FLAGS[place % 3] if kind in ("chat", "prompts") else {}
        run = make_example_run(
            rows, specs=(TEMPLATES[name],), template=name, on_bad_row="skip", cutoff_len=12_000,
            cutoff_policy=POLICIES[place // 3 % 3], tokenizer=with_template, **chosen,
        )  # fmt: skip
        try:
            made = BUILD[kind](run, "train")
        except ftk.DataError as error:
            raise AssertionError(f"{name}: {error}") from error
        facts = report(run)["train"]["datasets"]["inline-1"]
        dropped = sum(count for reason, count in facts.items() if reason.startswith("dropped"))
        assert facts["rows_read"] == len(rows) == facts["rows_used"] + dropped, (name, facts)
        first, last = ({key: str(value) for key, value in made[place].items() if key[:2] != "kl"} for place in (0, -1))
        assert {**first, "desirable": None} == {**last, "desirable": None}, name
        tried += 1
    assert tried > len(TEMPLATES) // (GROUPS + 2)
