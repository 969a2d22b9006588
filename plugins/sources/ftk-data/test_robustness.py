"""Rows that hypothesis mangles, through every installed converter as every kind of example that it makes: a row, or an
error or reason by row, always.

Reference: a count. What is read is used or dropped for one reason, and whatever a row holds, no other row changes.
``FTK_ROBUSTNESS_ROWS=10000 pytest test_robustness.py`` is the form that a release has to pass; CI takes fewer rows.
"""

import json
import os
import re
from itertools import islice

import ftk
import pytest
from ftk.registry import Registry
from ftk_data.rows import build_chat, build_feedback, build_pairs, build_prompts, build_text

INSTALLED = Registry.discover()
CONVERTERS = INSTALLED.specs("converter")
NUM = int(os.environ.get("FTK_ROBUSTNESS_ROWS", "500"))
"""Rows for each converter, shared out among the kinds of examples that it makes."""
BUILD = {
    "text": build_text, "chat": build_chat, "pairs": build_pairs, "feedback": build_feedback, "prompts": build_prompts,
}  # fmt: skip

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
SAID = [
    {"role": "system", "content": "be"},
    {"role": "user", "content": [{"type": "text", "text": "Say one"}]},
    {"role": "assistant", "content": "one is what I say", "reasoning_content": "why", "weight": 0.5},
]
CALLED = [
    {"role": "developer", "content": "be"},
    {"role": "user", "content": "Say one"},
    {"role": "assistant", "content": None, "tool_calls": [
        {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": [1]}'}},
        {"id": "2", "type": "function", "function": {"name": "f", "arguments": {"a": 2}}},
    ]},
    {"role": "tool", "tool_call_id": "2", "content": "3"},
    {"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": "4"}]},
    {"role": "assistant", "content": "one", "train": True},
]  # fmt: skip
HUMAN = [{"from": "human", "value": "Say one"}, {"from": "gpt", "value": "one"}]
OBSERVED = [
    {"from": "human", "value": "Say one"},
    {"from": "function_call", "value": '{"name": "f", "arguments": {"a": 1}}'},
    {"from": "observation", "value": "3"},
    {"from": "gpt", "value": "one", "loss": True},
]
ALPACA = {"instruction": "Say one", "input": "now", "output": "one is what I say"}
LONGER = {**ALPACA, "system": "be", "history": [["q", "a"], ["r", "b"]], "tools": json.dumps([TOOL])}
QUERY = {"query": "Say", "response": "one", "history": [["q", "a"]], "system": "be"}
GOOD = {
    # converter → kind → the entry's fields, and good rows
    "alpaca": {
        "text": ({"columns": {"prompt": "text"}}, [{"text": "one is what I say"}]),
        "chat": ({}, [ALPACA, LONGER]),
        "pairs": ({"ranking": True}, [{**ALPACA, "chosen": "one", "rejected": "two"}]),
        "feedback": ({"columns": {"kto_tag": "label"}}, [{**ALPACA, "label": True}, {**LONGER, "label": False}]),
        "prompts": ({"columns": {"response": None}}, [ALPACA, LONGER]),
    },
    "sharegpt": {
        "chat": ({"columns": {"images": "images"}}, [{"conversations": HUMAN}, {
            "conversations": OBSERVED, "tools": json.dumps([TOOL]), "system": "be", "images": []}]),
        "pairs": ({"ranking": True}, [{"conversations": HUMAN[:1], "chosen": HUMAN[1], "rejected": HUMAN[1:]}]),
        "feedback": ({"columns": {"kto_tag": "label"}}, [{"conversations": HUMAN, "label": True}]),
        "prompts": ({}, [{"conversations": HUMAN}, {"conversations": HUMAN[:1]}]),
    },
    "openai": {
        "chat": ({}, [{"messages": SAID}, {"messages": CALLED, "tools": [TOOL]}, {"messages": SAID[1:]}]),
        "pairs": ({"ranking": True}, [{"messages": SAID[:2], "chosen": SAID[2:], "rejected": "two"},
                                      {"chosen": SAID, "rejected": [*SAID[:2], CALLED[-1]]}]),
        "feedback": ({"columns": {"kto_tag": "label"}}, [{"messages": SAID, "label": False}]),
        "prompts": ({}, [{"messages": SAID[:2]}, {"messages": CALLED, "tools": json.dumps([TOOL])}]),
    },
    "swift": {
        "text": ({}, [{"messages": [{"role": "assistant", "content": "one"}]}, {"response": "one"}]),
        "chat": ({}, [{"messages": SAID[1:]}, QUERY, {"conversation": [{"human": "Say", "assistant": "one"}]}]),
        "pairs": ({}, [{**QUERY, "rejected_response": "two"}]),
        "feedback": ({}, [{**QUERY, "label": True}]),
        "prompts": ({}, [QUERY]),
    },
    "text": {"text": ({}, [{"text": "one is what I say"}])},
}  # fmt: skip
CASES = [(name, kind) for name in CONVERTERS for kind in GOOD.get(name, {"chat": None})]
ANY = {**ALPACA, "conversations": HUMAN, "messages": SAID, "text": "one", **QUERY}
"""A row that a converter which is not ours may understand."""


def lines_of(rows, broken):
    """The rows as JSON Lines, of which every hundredth is none."""
    for number, row in enumerate(rows):
        line = json.dumps(row)
        yield line if number % 100 != 50 else broken[number // 100 % len(broken)] or line[: len(line) // 2]


def dropped_of(facts, num):
    """Why rows went; all that were read are used or among those."""
    dropped = {reason: count for reason, count in facts.items() if reason.startswith("dropped")}
    assert facts["rows_read"] == num == facts["rows_used"] + sum(dropped.values()), facts
    return dropped


def all_ids(rows):
    return [ids.tolist() for row in rows for key, ids in row.items() if key.endswith("input_ids") and key[:2] != "kl"]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_every_mangled_row_is_an_example_or_a_reason(
    name, kind, mangled, make_run, tmp_path, report, tokenizer, monkeypatch
):
    monkeypatch.setattr(tokenizer, "split_special_tokens", kind in ("chat", "feedback"))
    fields, good = GOOD.get(name, {}).get(kind) or ({}, [ANY])
    rows = [good[0], *mangled(good, NUM // len(GOOD.get(name, [1])) - 2), good[0]]
    lines = [json.dumps(good[0]), *list(lines_of(rows, ["", "[]", "7", "nothing", '"x"', "null"]))[1:-1]]
    entry = {"file_name": str(tmp_path / "rows.jsonl"), "formatting": name, **fields}
    specs = () if name == "alpaca" else (CONVERTERS[name],)  # the fixture brings that one
    policy = ("truncate", "drop", "split")[CASES.index((name, kind)) % 3]
    chosen = {"on_bad_row": "skip", "cutoff_len": 200, "cutoff_policy": policy, "packing": False}
    run = make_run(lines="\n".join([*lines, json.dumps(good[0])]) + "\n", specs=specs, dataset=[entry], **chosen)
    made = BUILD[kind](run, "train")
    facts = report(run)["train"]["datasets"]["inline-1"]
    dropped = dropped_of(facts, len(rows))
    assert facts["rows_used"] > len(rows) // 20
    assert dropped["dropped: malformed"] > len(rows) // 50
    ids = all_ids(made)
    if kind != "prompts":
        assert len(ids) == facts["num_rows"]
        assert all(
            (row[key] != -100).any() for row in made for key in row if key.endswith("labels") and key[:2] != "kl"
        )
    assert all_ids(made[:1]) == all_ids(made[-1:]) != []

    told = streamed(make_run, kind, lines, good[0], specs, entry, chosen, len(made), report)
    assert {key: told[key] for key in told if key[:2] != "nu"} == {
        key: facts[key] for key in facts if key in told or key.startswith(("rows", "dropped", "partly"))
    }


def streamed(make_run, kind, lines, last, specs, entry, chosen, num, report):
    """What a stream of the same rows reports after one pass."""
    again = make_run(
        lines="\n".join([*lines, json.dumps(last)]) + "\n", specs=specs, dataset=[entry], streaming=True, buffer_size=1,
        **chosen,
    )  # fmt: skip
    rows = BUILD[kind](again, "train")
    given = sum(1 for _ in islice(rows, num + 1))
    assert given == num + 1
    rows.publish(num)
    rows.close()
    return report(again)["train"]["datasets"]["inline-1"]


CONVERSATION = {"messages": [{"role": "user", "content": "Say one"}, {"role": "assistant", "content": "one"}]}
ODD = [
    ({"text": "one"}, "holds text (stage pt), this stage wants conversations (stage sft)"),
    (
        {"messages": [{"role": "user", "content": "a\ud800"}, {"role": "assistant", "content": "b"}]},
        "half of a surrogate",
    ),
    ({"messages": [{"role": "tool", "content": "3"}]}, "chat template refuses"),
]


@pytest.mark.parametrize(("odd", "reason"), ODD)
def test_an_odd_row_is_named_or_skipped_and_costs_no_other(odd, reason, make_example_run, report):
    with pytest.raises(ftk.DataError, match=rf"rows\.jsonl:2: .*{re.escape(reason)}"):
        build_chat(make_example_run([CONVERSATION, odd, CONVERSATION]), "train")
    run = make_example_run([CONVERSATION, odd, CONVERSATION], on_bad_row="skip")
    assert len(build_chat(run, "train")) == 2
    assert dropped_of(report(run)["train"]["datasets"]["inline-1"], 3) == {"dropped: malformed": 1}


def test_a_data_set_that_begins_with_another_kind_is_no_row_by_row_matter(make_example_run):
    with pytest.raises(ftk.ConfigError, match=r"inline-1: holds text \(stage pt\), this stage wants conversations"):
        build_chat(make_example_run([{"text": "one"}, CONVERSATION], on_bad_row="skip"), "train")


@pytest.mark.parametrize("text", ["a\ud800", "\udfff"])
def test_half_characters_in_documents_are_errors_by_row(text, make_example_run, report):
    run = make_example_run([{"text": "one"}, {"text": text}], on_bad_row="skip", packing=False)
    assert len(build_text(run, "train")) == 1
    with pytest.raises(ftk.DataError, match=r"rows\.jsonl:2: holds half of a surrogate pair"):
        build_text(make_example_run([{"text": "one"}, {"text": text}], packing=False), "train")
