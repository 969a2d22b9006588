"""Ten thousand mangled rows through every installed converter and template: an example or an error by row, always.

Reference: a count. What is read is used or dropped for a reason, and whatever a row holds, no other row changes.
"""

import copy
import json
import re
from random import Random

import ftk
import pytest
from ftk.registry import Registry
from ftk_data.rows import build_chat, build_text

INSTALLED = Registry.discover()
CONVERTERS = INSTALLED.specs("converter")
TEMPLATES = INSTALLED.specs("template")
NUM = 10_000

GOOD = {
    "alpaca": {"instruction": "Say one", "input": "now", "output": "one is what I say"},
    "sharegpt": {"conversations": [{"from": "human", "value": "Say one"}, {"from": "gpt", "value": "one"}]},
    "openai": {
        "messages": [
            {"role": "system", "content": "be"},
            {"role": "user", "content": [{"type": "text", "text": "Say one"}]},
            {"role": "assistant", "content": "one is what I say"},
        ]
    },
    "swift": {"messages": [{"role": "user", "content": "Say"}, {"role": "assistant", "content": "one"}]},
    "text": {"text": "one is what I say"},
}
ANY = {key: value for row in GOOD.values() for key, value in row.items()}
"""A row that a converter which is not ours may understand."""
WORDS = (
    "", " ", "one", "<|im_end|>", "<|im_start|>assistant\n", "<image>", "<think>\n", "</think>", "{{ x }}", "{% if %}",
    "<tool_call>", "\x00", "\ud800", "\ue0f0", "👩‍🌾", "ﷺ" * 9, "a" * 3000, "user", "assistant", "tool", "{", "[1]",
)  # fmt: skip


def nonsense(random):
    return random.choice([
        *(random.choice(WORDS) for _ in range(4)), None, True, 0, -1.5, 10**30, [], {}, [random.choice(WORDS)],
        {random.choice(WORDS): random.choice(WORDS)}, [[["x"]]], [{"role": "user", "content": None}],
    ])  # fmt: skip


def mangled(row, random):
    """A row with up to three changes anywhere in it."""
    row = copy.deepcopy(row)
    for _ in range(random.choice([0, 1, 1, 2, 3])):
        holder, steps = row, []
        while isinstance(holder, (dict, list)) and holder and (not steps or random.random() < 0.7):
            steps.append((holder, random.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))))
            holder = steps[-1][0][steps[-1][1]]
        if not steps:
            row[random.choice(["extra", "system", "tools", "images"])] = nonsense(random)
            continue
        parent, key = steps[-1]
        how = random.choice(["replace", "replace", "words", "drop", "double"])
        if how == "replace":
            parent[key] = nonsense(random)
        elif how == "words" and isinstance(parent[key], str):
            place = random.randrange(len(parent[key]) + 1)
            parent[key] = parent[key][:place] + random.choice(WORDS) + parent[key][place:]
        elif how == "drop":
            del parent[key]
        elif isinstance(parent, list):
            parent.insert(key, copy.deepcopy(parent[key]))
    return row


def lines_of(rows, random):
    """The rows as JSON Lines, of which some are none."""
    for row in rows:
        line = json.dumps(row)
        yield line if random.random() > 0.01 else random.choice([line[: len(line) // 2], "[]", "7", "nothing", '"x"'])


def check(facts, num):
    dropped = {reason: count for reason, count in facts.items() if reason.startswith("dropped")}
    assert facts["rows_read"] == num == facts["rows_used"] + sum(dropped.values())
    return dropped


@pytest.mark.parametrize("name", CONVERTERS)
def test_every_mangled_row_is_an_example_or_an_error_by_row(name, make_run, tmp_path, report):
    random = Random(name)
    good = GOOD.get(name, ANY)
    rows = [good, *(mangled(good, random) for _ in range(NUM // len(CONVERTERS) - 2)), good]
    lines = list(lines_of(rows, random))
    lines[0] = lines[-1] = json.dumps(good)
    entry = {"file_name": str(tmp_path / "rows.jsonl"), "formatting": name}
    run = make_run(lines="\n".join(lines) + "\n", specs=other_specs("converter", name), dataset=[entry],
                   on_bad_row="skip", cutoff_len=512, packing=False)  # fmt: skip
    is_text = isinstance(CONVERTERS[name].load()(good, run.datasets("train")[0].entry), ftk.TextExample)
    made = (build_text if is_text else build_chat)(run, "train")
    facts = report(run)["train"]["datasets"]["inline-1"]
    dropped = check(facts, len(rows))
    assert facts["rows_used"] > len(rows) // 20
    assert dropped["dropped: malformed"] > len(rows) // 50
    for row in made:
        assert len(row["input_ids"]) == len(row["labels"]) > 0
        assert (row["labels"] != -100).any()
    assert made[0]["input_ids"].tolist() == made[-1]["input_ids"].tolist()


def other_specs(kind, name):
    """A spec that :func:`make_run` doesn't bring itself."""
    return () if name == "alpaca" else (INSTALLED.specs(kind)[name],)


CONVERSATIONS = [
    {"messages": [{"role": "user", "content": "Say one"}, {"role": "assistant", "content": "one"}]},
    {"messages": [{"role": "system", "content": "be"}, {"role": "user", "content": "Say"},
                  {"role": "assistant", "content": "one", "reasoning": "why"}, {"role": "user", "content": "two"},
                  {"role": "assistant", "content": "two", "weight": 0.5}]},
    {"messages": [{"role": "user", "content": "Say"},
                  {"role": "assistant", "tool_calls": [{"name": "f", "arguments": {"a": [1, "x"]}}]},
                  {"role": "tool", "content": "3"}, {"role": "assistant", "content": "three"}],
     "tools": [{"type": "function", "function": {"name": "f", "parameters": {"properties": {}}}}]},
]  # fmt: skip


def mangled_turns(row, random):
    """A conversation with its turns dropped, doubled, swapped or in other roles, and other words in them."""
    turns = copy.deepcopy(row["messages"])
    for _ in range(random.randrange(4)):
        if turns:
            place = random.randrange(len(turns))
            how = random.randrange(6)
            if how == 0:
                del turns[place]
            elif how == 1:
                turns.insert(place, copy.deepcopy(turns[place]))
            elif how == 2:
                turns.append(turns.pop(place))
            elif how == 3:
                turns[place]["role"] = random.choice(["system", "user", "assistant", "tool"])
            else:
                turns[place][random.choice(["content", "reasoning"])] = random.choice(WORDS)
    return {**row, "messages": turns}


@pytest.fixture
def with_template(tokenizer, monkeypatch):
    """A tokenizer that brings a chat template of its own, for the templates that take it."""
    source = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{{ m.tool_calls | default('') }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    monkeypatch.setattr(tokenizer, "chat_template", source)
    return tokenizer


@pytest.mark.parametrize("first", range(8))
def test_every_mangled_conversation_is_rows_or_an_error_with_every_template(
    first, make_example_run, report, with_template
):
    random = Random(first)
    tried = 0
    for name in list(TEMPLATES)[first::8]:
        template = TEMPLATES[name]
        rows = [CONVERSATIONS[0], *(mangled_turns(random.choice(CONVERSATIONS), random) for _ in range(30))]
        run = make_example_run(rows, specs=(template,), template=name, on_bad_row="skip", cutoff_len=512,
                               tokenizer=with_template)  # fmt: skip
        try:
            build_chat(run, "train")
        except ftk.DataError as error:
            raise AssertionError(f"{name}: {error}") from error
        check(report(run)["train"]["datasets"]["inline-1"], len(rows))
        tried += 1
    assert tried > len(TEMPLATES) // 10


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
        build_chat(make_example_run([CONVERSATIONS[0], odd, CONVERSATIONS[0]]), "train")
    run = make_example_run([CONVERSATIONS[0], odd, CONVERSATIONS[0]], on_bad_row="skip")
    assert len(build_chat(run, "train")) == 2
    assert check(report(run)["train"]["datasets"]["inline-1"], 3) == {"dropped: malformed": 1}


def test_a_data_set_that_begins_with_another_kind_is_no_row_by_row_matter(make_example_run):
    with pytest.raises(ftk.ConfigError, match=r"inline-1: holds text \(stage pt\), this stage wants conversations"):
        build_chat(make_example_run([{"text": "one"}, CONVERSATIONS[0]], on_bad_row="skip"), "train")


@pytest.mark.parametrize("text", ["a\ud800", "\udfff"])
def test_half_characters_in_documents_are_errors_by_row(text, make_example_run, report):
    run = make_example_run([{"text": "one"}, {"text": text}], on_bad_row="skip", packing=False)
    assert len(build_text(run, "train")) == 1
    with pytest.raises(ftk.DataError, match=r"rows\.jsonl:2: holds half of a surrogate pair"):
        build_text(make_example_run([{"text": "one"}, {"text": text}], packing=False), "train")
