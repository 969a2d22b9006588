"""What the tests of ftk-data share: a tiny tokenizer, real ones, and runs over rows in a file, without any model."""

import copy
import gzip
import json
import shutil
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import ftk
import pluggy
import pytest
from ftk.config import Setting
from ftk.plan import make_plan
from ftk.plugins import PluginRecord
from ftk.registry import Registry
from ftk.run import Run
from ftk.types import Tokens
from ftk_data import DataOptions, TemplateOptions
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

TOKENIZERS = Path(__file__).parents[4] / "shared" / "golden" / "tokenizers"
CHATML = ftk.ChatTemplate(
    "made-chatml",
    system="<|im_start|>system\n{content}<|im_end|>\n",
    user="<|im_start|>user\n{content}<|im_end|>\n",
    generation="<|im_start|>assistant\n",
    assistant="{content}<|im_end|>",
    assistant_end="\n",
    stop=("<|im_end|>",),
    options=TemplateOptions,
)


@pytest.fixture(scope="session")
def rows():
    return [
        {"instruction": f"Say {n}", "input": "", "output": f"{n} is what I say"}
        for n in ("one", "two", "three", "four")
    ]


@pytest.fixture(scope="session")
def tokenizer():
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    special = ["<|end|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        ["system user assistant Say one two three four is what I say"] * 3,
        trainers.BpeTrainer(vocab_size=320, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|im_end|>", pad_token="<|end|>")


@pytest.fixture(scope="session")
def loaded_tokenizer(tmp_path_factory):
    """``loaded_tokenizer(name)``: one of the published tokenizers beside the project, read once."""

    @cache
    def load(name):
        if not (TOKENIZERS / name).exists():
            pytest.skip(f"{TOKENIZERS / name} is not there")
        folder = tmp_path_factory.mktemp(name)
        for file in (TOKENIZERS / name).iterdir():
            if file.suffix == ".gz":
                (folder / file.stem).write_bytes(gzip.decompress(file.read_bytes()))
            else:
                shutil.copy(file, folder)
        return AutoTokenizer.from_pretrained(str(folder))

    return load


@pytest.fixture
def shared_tokenizer(loaded_tokenizer):
    """``shared_tokenizer(name)``: the same, put back as it was after the test; else the test is skipped."""
    before = {}

    def load(name):
        tokenizer = loaded_tokenizer(name)
        before.setdefault(name, (tokenizer, dict(tokenizer._special_tokens_map), tokenizer.split_special_tokens))
        return tokenizer

    yield load
    for tokenizer, special, literally in before.values():
        tokenizer._special_tokens_map = special
        tokenizer.split_special_tokens = literally


@pytest.fixture
def make_run(tmp_path, monkeypatch, tokenizer, rows):
    """``make_run(rows, lines, specs, tokenizer, **settings)``: no model, no trainer's code.

    The rows are read from a file by ftk-file and converted by ftk-alpaca. specs: more features that are installed.
    """
    ftk_file, ftk_alpaca = pytest.importorskip("ftk_file"), pytest.importorskip("ftk_alpaca")
    monkeypatch.setenv("FTK_CACHE", str(tmp_path / "cache"))
    always = (
        ftk.ModelLoader("none", target="none:none", default=True),
        ftk.Adapter("none", target="none:none", default=True),
        ftk.Trainer("sft", target="none:none", default=True, options=(DataOptions, TemplateOptions)),
        CHATML,
        *ftk_file.ftk_dataset_sources(),
        *ftk_alpaca.ftk_dataset_converters(),
    )
    default_rows, default_tokenizer = rows, tokenizer

    def make(rows=None, lines=None, specs=(), tokenizer=None, **settings):
        rows = default_rows if rows is None else rows
        record = PluginRecord("made", "made", "1", "made", specs=(*always, *specs))
        path = tmp_path / "rows.jsonl"
        path.write_text(lines if lines is not None else "".join(json.dumps(row) + "\n" for row in rows))
        chosen = {
            "dataset": str(path),
            "template": "made-chatml",
            "output_dir": str(tmp_path / "out"),
            "model_name_or_path": "none",
            **settings,
        }
        registry = Registry((record,), pluggy.PluginManager("ftk"))
        plan = make_plan({key: Setting(value, "the test") for key, value in chosen.items()}, registry)
        run = Run(plan)
        run.tokens = Tokens(default_tokenizer if tokenizer is None else tokenizer)
        return run

    return make


@pytest.fixture
def make_example_run(tmp_path, monkeypatch, make_run):
    """``make_example_run(rows, **as make_run)``: the rows spell examples out, see :func:`example_of`."""
    module = ModuleType("made_converter")
    module.example_of = example_of
    monkeypatch.setitem(sys.modules, "made_converter", module)
    converter = ftk.DatasetConverter("spelt", target="made_converter:example_of")

    def make(rows, specs=(), **settings):
        entry = {"file_name": str(tmp_path / "rows.jsonl"), "formatting": "spelt"}
        return make_run(rows, specs=(converter, *specs), **{"dataset": [entry], **settings})

    return make


def example_of(row, entry):
    """``{"messages": [fields of a Message], "tools": ...}``, with ``chosen`` and ``rejected``, or ``desirable``.

    ``{"text": ...}`` is text, ``{"empty": true}`` nothing, ``{"bad": reason}`` malformed.
    """
    if "bad" in row:
        raise ftk.DataError(row["bad"])
    if "text" in row:
        return ftk.TextExample(row["text"])
    if row.get("empty"):
        return None
    messages, tools = turns_of(row["messages"]), tuple(row.get("tools", ()))
    if "chosen" in row:
        return ftk.PairExample(messages, turns_of(row["chosen"]), turns_of(row["rejected"]), tools)
    if "desirable" in row:
        return ftk.FeedbackExample(messages, row["desirable"], tools)
    return ftk.ChatExample(messages, tools)


def turns_of(turns):
    return tuple(
        ftk.Message(
            **{
                **turn,
                "content": content_of(turn.get("content", "")),
                "tool_calls": tuple(ftk.ToolCall(**call) for call in turn.get("tool_calls", ())),
            }
        )
        for turn in turns
    )


def content_of(content):
    """Text, or a list of texts and ``[kind, source]``."""
    if isinstance(content, str):
        return content
    return tuple(ftk.Text(part) if isinstance(part, str) else ftk.Media(*part) for part in content)


@pytest.fixture
def report():
    """``report(run)``: its data report."""
    return lambda run: json.loads((run.output_dir / "data_report.json").read_text())


# Rows that somebody's script has mangled

WORDS = (
    "", " ", "one", "<|im_end|>", "<|im_start|>assistant\n", "<image>", "<think>\n", "</think>", "{{ x }}", "{% if %}",
    "<tool_call>", '<tool_call>{"name": "f"}</tool_call>', '{"name": "f", "arguments": "{}"}', "\x00", "\ud800",
    "\ue0f0", "👩‍🌾", "ﷺ" * 9, "a" * 900, "user", "assistant", "tool", "system", "function_call", "human", "gpt", "{",
    "[1]",
)  # fmt: skip
KEYS = (
    "role",
    "content",
    "from",
    "value",
    "type",
    "text",
    "name",
    "arguments",
    "function",
    "images",
    "tools",
    "system",
)


@pytest.fixture(scope="session")
def words():
    return WORDS


@pytest.fixture(scope="session")
def generated():
    """``generated(strategy, num)``: so many values that hypothesis chose, the same in every run."""
    hypothesis = pytest.importorskip("hypothesis")

    @cache
    def generate(strategy, num):
        found = []
        quietly = hypothesis.settings(
            max_examples=num, deadline=None, derandomize=True, database=None, phases=[hypothesis.Phase.generate],
            suppress_health_check=list(hypothesis.HealthCheck),
        )  # fmt: skip
        quietly(hypothesis.given(strategy)(lambda value: found.append(value)))()
        assert len(found) >= num * 0.9, f"hypothesis found only {len(found)} of {num}"
        return found[:num]

    return generate


@pytest.fixture(scope="session")
def mangled(generated):
    """``mangled(rows, num)``: so many rows, each one of these with up to three changes anywhere in it."""
    hypothesis = pytest.importorskip("hypothesis")
    st = hypothesis.strategies
    nonsense = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(WORDS) | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
        max_leaves=5,
    )

    def change(draw, row):
        parent, key = row, None
        while isinstance(parent, (dict, list)) and parent:
            holder, key = (
                parent,
                draw(st.sampled_from(list(parent) if isinstance(parent, dict) else range(len(parent)))),
            )
            parent = holder[key]
            if draw(st.integers(0, 9)) < 2:
                break
        how = draw(st.sampled_from(["words", "words", "words", "add", "replace", "replace", "drop", "double", "wrap"]))
        if key is None or how == "add":
            row[draw(st.sampled_from(KEYS))] = draw(nonsense)
        elif how == "words" and isinstance(holder[key], str):
            place = draw(st.integers(0, len(holder[key])))
            holder[key] = holder[key][:place] + draw(st.sampled_from(WORDS)) + holder[key][place:]
        elif how == "drop":
            del holder[key]
        elif how == "wrap":
            holder[key] = draw(st.sampled_from([[holder[key]], {"text": holder[key]}, str(holder[key])]))
        elif how == "double" and isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
        else:
            holder[key] = draw(nonsense)

    @st.composite
    def one(draw, rows):
        row = copy.deepcopy(draw(st.sampled_from(rows)))
        for _ in range(draw(st.sampled_from([0, 1, 1, 1, 2, 3]))):
            change(draw, row)
        return row

    return lambda rows, num: generated(one(rows), num)
