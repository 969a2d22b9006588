"""What tests of converters share: rows that somebody's script has mangled, and where the shared data lie."""

import copy
import json
import os
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from ftk import ChatExample, DataError, FeedbackExample, PairExample, TextExample

SHARED = Path(__file__).parents[3] / "shared"
EXAMPLES = (TextExample, ChatExample, PairExample, FeedbackExample)
WORDS = (
    "<image>", "<video><image>", "<think>a</think>b", "<tool_call>", '<tool_call>{"name": "f"}</tool_call>', "[", "{",
    '{"name": "f", "arguments": "{}"}', '[{"name": "f", "arguments": {"a": [1]}}]', '{"name": 1}', "[[[[", "1e999",
    "\ud800", "\x00", "\u2028", "👩‍🌾", "x" * 20_000, "[" * 20_000, "9" * 5_000, "<img>a.png</img>", "human", "gpt",
    "user", "assistant", "tool", "system", "function_call", "observation", "True", "",
)  # fmt: skip

NUM = int(os.environ.get("FTK_ROBUSTNESS_ROWS", "2000"))
KEYS = ("role", "content", "from", "value", "type", "text", "image_url", "url", "name", "id", "arguments", "function")


@pytest.fixture(scope="session")
def golden_cases():
    """The cases of LLaMA-Factory's converters, of one kind and layout."""
    path = SHARED / "golden" / "llamafactory_cases.jsonl"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    cases = [json.loads(line) for line in path.open(encoding="utf-8")]

    def chosen(kind, formatting):
        return [case for case in cases if case["kind"] == kind and case["formatting"] == formatting]

    return chosen


@pytest.fixture(scope="session")
def demo_row():
    """The row that a ``converter_demo_row`` case is about, and the entry's fields."""
    folder = SHARED / "data" / "llamafactory"
    if not folder.exists():
        pytest.skip(f"{folder} is not there")
    info = json.loads((folder / "dataset_info.json").read_text(encoding="utf-8"))

    def read(case):
        text = (folder / case["file"]).read_text(encoding="utf-8")
        suffix = Path(case["file"]).suffix
        if suffix == ".json":
            row = json.loads(text)[case["row"]]
        else:
            line = text.split("\n")[case["row"]]
            row = json.loads(line) if suffix == ".jsonl" else {"text": line}
        return row, info[case["dataset"]]

    return read


@pytest.fixture(scope="session")
def survives():
    """Convert NUM rows, each made from a good one by a few random changes: an example, None or DataError only."""
    hypothesis = pytest.importorskip("hypothesis")
    quietly = hypothesis.settings(
        max_examples=NUM, deadline=None, derandomize=True, database=None, phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    seeds = hypothesis.strategies.integers(0, 2**62)

    def check(convert, rows, entries):
        outcomes = Counter()

        @quietly
        @hypothesis.given(seeds)
        def run(seed):
            random = Random(seed)
            row = copy.deepcopy(random.choice(rows))
            for _ in range(random.choice([0, 1, 1, 2, 3])):
                change(row, random)
            before = repr(row)
            outcomes[outcome(convert, row, random.choice(entries))] += 1
            assert repr(row) == before

        run()
        assert outcomes.total() == NUM
        return set(outcomes)

    return check


def outcome(convert, row, entry):
    try:
        made = convert(row, entry)
    except DataError:
        return DataError
    assert made is None or isinstance(made, EXAMPLES)
    return type(made)


def nonsense(random, depth=0):
    """A value of any type, nested up to three deep."""
    kind = random.randrange(8 if depth < 3 else 6)
    if kind == 6:
        return [nonsense(random, depth + 1) for _ in range(random.randrange(4))]
    if kind == 7:
        return {random.choice(KEYS): nonsense(random, depth + 1) for _ in range(random.randrange(4))}
    numbers = (True, False, 0, -1, 7, 10**400, 0.5, -0.0, 1e308, float("nan"), float("inf"))
    return random.choice([None, random.choice(WORDS), random.choice(WORDS), random.choice(numbers), b"\xff", b""])


def change(row, random):
    """One random change at a random place of a row; the row itself stays a mapping."""
    path = random.choice([*paths(row), ()])
    how = random.choice(["replace", "replace", "drop", "wrap", "double"])
    if not path:
        row[random.choice([*row, "extra", "system", "tools", "images", "label"])] = nonsense(random)
        return
    *outer, last = path
    holder = row
    for step in outer:
        holder = holder[step]
    if how == "replace":
        holder[last] = nonsense(random)
    elif how == "drop":
        del holder[last]
    elif how == "wrap":
        holder[last] = random.choice([[holder[last]], {"text": holder[last]}, (holder[last],)])
    elif isinstance(holder, list):
        holder.insert(last, copy.deepcopy(holder[last]))


def paths(value, path=()):
    """The way to everything inside a nested value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in items:
        yield (*path, key)
        yield from paths(one, (*path, key))
