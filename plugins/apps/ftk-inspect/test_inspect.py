"""``ftk data``. References: the tokenizer's own decoding of whole rows, rows counted by hand, and texts written out."""

import gzip
import json
import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import ftk_inspect.terminal as terminal
import numpy as np
import pytest
from ftk import Media
from ftk.opening import open_run
from ftk.testing import check_plugin
from ftk_inspect.pieces import documents_of, parts_of
from ftk_inspect.report import histogram
from hypothesis import given, settings
from hypothesis import strategies as some
from rich.console import Console
from rich.style import Style
from transformers import AutoTokenizer

GOLDEN = Path(__file__).parents[4] / "shared" / "golden"
ROWS = [
    {"instruction": "How do you do?", "output": "Very well, thank you."},
    {"instruction": "Say it in Japanese:\nthe world", "output": "世界 👩‍👩‍👧!\n\tDone <b>&amp;</b>"},
    {"instruction": "Count", "output": "one two three four five six"},
    {"instruction": "Nothing", "output": ""},
    {"instruction": "Name a color.", "output": "Blue."},
]
ASKED = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FTK_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def config(tmp_path):
    """``config(rows, key=value, ...)``: the path of a YAML over these rows. A row may be a line of text."""

    def write(rows=ROWS, **settings):
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n")
        content = {
            "model_name_or_path": "ftk://tiny-chat", "stage": "sft", "dataset": str(tmp_path / "rows.jsonl"),
            "output_dir": str(tmp_path / "out"), **settings,
        }  # fmt: skip
        (tmp_path / "c.yaml").write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in content.items()))
        return str(tmp_path / "c.yaml")

    return write


@cache
def tiny_tokenizer():
    return open_run("chat", None, ["--model_name_or_path", "ftk://tiny-chat"]).tokenizer


def shown(result):
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def segments(row):
    return [(one["text"], one["trained"]) for one in row["segments"]]


def test_the_plugin_keeps_the_contract():
    assert check_plugin("inspect")


# preview


def test_json_has_the_tokens_and_their_text(ftk_cli, config):
    rows = shown(ftk_cli("data", "preview", config(), "-n", "9", "--json"))
    filled = [row for row in ROWS if row["output"]]
    assert len(rows) == len(filled)
    for made, row in zip(rows, filled, strict=True):
        prompt, answer = ASKED.format(row["instruction"]), row["output"] + "<|im_end|>"
        assert segments(made) == [(prompt, False), (answer, True), ("\n", False)]
        assert tiny_tokenizer().decode(made["input_ids"]) == prompt + answer + "\n"
        trained = [label for label in made["labels"] if label != -100]
        assert tiny_tokenizer().decode(trained) == answer


def test_a_pack_tells_its_documents_apart(ftk_cli, config):
    (row, *_) = shown(ftk_cli("data", "preview", config(ROWS[:1] * 3), "--packing", "true", "--json"))
    answer = ("Very well, thank you.<|im_end|>", True)
    assert segments(row) == [(ASKED.format("How do you do?"), False), answer, ("\n", False)] * 3
    assert [one["document"] for one in row["segments"]] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert row["position_ids"].count(0) == 3


def test_a_pipe_gets_a_line_for_each_stretch(ftk_cli, config):
    result = ftk_cli("data", "preview", config(ROWS[:1] * 2), "--packing=true")
    assert result.exit_code == 0, result.output
    document = [
        '  not trained  "<|im_start|>user\\nHow do you do?<|im_end|>\\n<|im_start|>assistant\\n"',
        '  trained      "Very well, thank you.<|im_end|>"',
        '  not trained  "\\n"',
    ]
    assert re.fullmatch(r"row 1 of 1: \d+ tokens, 14 trained, 2 documents", result.stdout.splitlines()[0])
    assert result.stdout.splitlines()[1:] == [*document, "  document 2", *document]


def test_the_command_line_replaces_keys(ftk_cli, config):
    (row,) = shown(ftk_cli("data", "preview", config(ROWS[:1]), "--train_on_prompt", "true", "--json"))
    assert row["labels"] == row["input_ids"]
    assert [trained for _, trained in segments(row)] == [True]


def test_eval_rows_are_shown_when_there_are_any(ftk_cli, config):
    rows = shown(ftk_cli("data", "preview", config(), "--split", "eval", "--val_size", "2", "--json"))
    assert len(rows) == 2
    result = ftk_cli("data", "preview", config(), "--split", "eval")
    assert result.exit_code == 2
    assert "has no eval rows. Set eval_dataset or val_size" in result.stderr


def test_nothing_is_written_where_the_run_writes(ftk_cli, config, tmp_path):
    saved = tmp_path / "saved"
    path = config(tokenized_path=str(saved))
    for command in ("preview", "report"):
        assert ftk_cli("data", command, path).exit_code == 0
        assert not (tmp_path / "out").exists()
        assert not saved.exists()


def test_a_config_without_output_dir_can_be_looked_at(ftk_cli, config):
    assert ftk_cli("data", "preview", config(output_dir=None)).exit_code == 0


class Spans(HTMLParser):
    """The tags of a page, and the text of its token spans with their classes."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.rows, self.kinds, self.inside = [], [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "pre":
            self.rows.append("")
        self.inside = tag == "pre" or (self.inside and tag in ("span", "i"))
        if self.inside and tag == "span":
            self.kinds.append(dict(attrs)["class"][0])

    def handle_endtag(self, tag):
        self.inside = self.inside and tag != "pre"

    def handle_data(self, data):
        if self.inside:
            self.rows[-1] += data


def test_the_page_holds_all_text_and_needs_nothing_else(ftk_cli, config, tmp_path):
    file = tmp_path / "rows.html"
    assert ftk_cli("data", "preview", config(), "-n", "2", "--html", file).stdout == ""
    page = Spans(file.read_text(encoding="utf-8"))
    for text, row in zip(page.rows, ROWS, strict=False):
        whole = ASKED.format(row["instruction"]) + row["output"] + "<|im_end|>\n"
        assert text == whole.replace("\n", "↵\n")
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in page.tags}
    assert not {"src", "href", "onclick"} & {key for _, attrs in page.tags for key in attrs}
    assert "url(" not in file.read_text()
    assert set(page.kinds) == {"t", "o"}
    ids = [int(one) for tag, attrs in page.tags if tag == "span" and "title" in attrs for one in attrs["title"].split()]
    rows = shown(ftk_cli("data", "preview", config(), "-n", "2", "--json"))
    assert ids == [one for row in rows for one in row["input_ids"]]


def test_the_page_can_go_to_stdout_and_tells_documents_apart(ftk_cli, config):
    result = ftk_cli("data", "preview", config(ROWS[:1] * 2), "--packing", "true", "--html", "-")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("<!doctype html>")
    assert set(Spans(result.stdout).kinds) == {"t", "o", "u", "p"}
    assert ftk_cli("data", "preview", config(), "--html", "-", "--json").exit_code == 2


@pytest.mark.parametrize(
    ("system", "shade"), [("truecolor", r"48;2;[\d;]+m"), ("256", r"48;5;\d+m"), ("standard", r"30;\d+m")]
)
def test_a_terminal_gets_tokens_in_colours_that_the_legend_explains(monkeypatch, system, shade):
    row = {"input_ids": tiny_tokenizer()("a b\x1b[2J c\nd")["input_ids"]}
    row["labels"] = [-100, -100, *row["input_ids"][2:]]
    for known in (Style.parse, Style._add):  # rich keeps the codes of the first terminal
        known.cache_clear()
    made = Console(force_terminal=True, color_system=system, width=100, _environ={})
    monkeypatch.setattr(terminal, "Console", lambda **_: made)
    with made.capture() as capture:
        terminal.print_rows([parts_of(row, tiny_tokenizer())], 1)
    text = capture.get()
    legend, *_ = text.splitlines()
    colours = re.findall(shade, legend)
    assert set(re.findall(shade, text)) == set(colours)
    assert len(set(colours)) == 4
    assert "\x1b[2J" not in text
    assert "[2J" in re.sub(r"\x1b\[[\d;]*m", "", text)


@cache
def golden_tokenizer(name, folder):
    with gzip.open(GOLDEN / "tokenizers" / name / "tokenizer.json.gz") as packed:
        (folder / "tokenizer.json").write_bytes(packed.read())
    (folder / "tokenizer_config.json").write_bytes(
        (GOLDEN / "tokenizers" / name / "tokenizer_config.json").read_bytes()
    )
    return AutoTokenizer.from_pretrained(folder)


def check_pieces(tokenizer, texts):
    """Pieces joined are what the tokenizer decodes, and each token is in one piece with its own label."""
    parts = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    ids = [one for part in parts for one in part]
    labels = [one if number % 2 else -100 for number, part in enumerate(parts) for one in part]
    (part,) = parts_of({"input_ids": np.array(ids), "labels": np.array(labels)}, tokenizer)
    whole = tokenizer.decode(ids, clean_up_tokenization_spaces=False) if ids else ""
    assert "".join(piece.text for piece in part.pieces) == whole
    assert [one for piece in part.pieces for one in piece.ids] == ids
    assert [piece.trained for piece in part.pieces for _ in piece.ids] == [label != -100 for label in labels]
    assert (part.num_tokens, part.num_trained) == (len(ids), sum(label != -100 for label in labels))


@settings(max_examples=50, deadline=None)
@given(some.lists(some.text(max_size=12), max_size=4))
def test_pieces_are_the_text_of_the_row(texts):
    check_pieces(tiny_tokenizer(), texts)


@pytest.mark.parametrize("name", ["gpt-2", "phi-3"])
def test_pieces_are_the_text_of_the_row_for_other_kinds_of_tokenizers(name, tmp_path):
    if not GOLDEN.exists():
        pytest.skip(f"{GOLDEN} is not there")
    tokenizer = golden_tokenizer(name, tmp_path)
    for texts in (["Hello", " world"], ["Grüße 世界", "👩‍👩‍👧 and", "\ufffd\n\n  x"], ["", "  a  b "], ["ﷺ" * 3, "é"]):
        check_pieces(tokenizer, texts)


def test_positions_that_restart_begin_documents():
    assert documents_of(None, 3).tolist() == [0, 0, 0]
    assert documents_of(np.array([0, 1, 0, 0, 1]), 5).tolist() == [0, 0, 1, 2, 2]
    assert documents_of(np.array([[[3, 4, 0]], [[0, 0, 0]]]), 3).tolist() == [0, 0, 1]


def test_a_row_of_a_pair_has_two_parts_and_other_values_are_shown_as_they_are():
    ids = tiny_tokenizer()("yes")["input_ids"]
    row = {
        "chosen_input_ids": ids, "chosen_labels": ids, "rejected_input_ids": ids, "rejected_labels": [-100] * len(ids),
        "media": [Media("image", "a.png"), Media("audio", b"123")], "weight": np.float32(0.5),
    }  # fmt: skip
    parts = parts_of(row, tiny_tokenizer())
    made = json.loads(json.dumps(terminal.as_dict(row, parts)))
    assert made["chosen_segments"] == [{"text": "yes", "trained": True, "document": 0}]
    assert made["rejected_segments"] == [{"text": "yes", "trained": False, "document": 0}]
    assert made["media"] == [{"kind": "image", "source": "a.png"}, {"kind": "audio", "source": "3 bytes"}]
    assert made["weight"] == 0.5


# report


def test_the_report_counts_what_preview_shows(ftk_cli, config):
    rows = shown(ftk_cli("data", "preview", config(), "-n", "9", "--json"))
    made = shown(ftk_cli("data", "report", config(), "--json"))["train"]
    lengths = [len(row["input_ids"]) for row in rows]
    assert made["num_rows"] == len(rows)
    assert made["num_tokens"] == sum(lengths)
    assert made["num_trained_tokens"] == sum(label != -100 for row in rows for label in row["labels"])
    assert made["longest_row"] == max(lengths)
    (one,) = made["datasets"].values()
    assert (one["rows_read"], one["num_rows"], one["dropped: empty"]) == (len(ROWS), len(rows), 1)
    counted = [sum(bar["from"] <= length <= bar["to"] for length in lengths) for bar in made["lengths"]]
    assert [bar["count"] for bar in made["lengths"]] == counted


def test_the_report_is_readable_and_says_nothing_twice(ftk_cli, config, caplog):
    result = ftk_cli("data", "report", config(), "--cutoff_len", "32", "--val_size", "1")
    assert result.exit_code == 0, result.output
    for line in (
        r"train: 3 rows, [\d,]+ tokens, \d+ of them trained \(\d+\.\d %\)", r"data set +read +rows +tokens.*",
        r"rows +5 +4 .*", r"  dropped: empty +1 *", r"  truncated +1 *", r"longest row  \d+ tokens \(cutoff_len 32\)",
        r"\d+–\d+  █{40} \d", r"eval: 1 rows, .*",
    ):  # fmt: skip
        assert re.search(f"^{line}$", result.stdout, re.MULTILINE), line
    assert result.output.count("dropped: empty") == 1
    assert not [message for message in caplog.messages if "dropped: empty" in message]


def test_packing_is_measured(ftk_cli, config):
    made = shown(ftk_cli("data", "report", config(), "--packing", "true", "--cutoff_len", "80", "--json"))["train"]
    rows = shown(ftk_cli("data", "preview", config(), "-n", "9", "--packing", "true", "--cutoff_len", "80", "--json"))
    tokens = sum(len(row["input_ids"]) for row in rows)
    assert made["packing_efficiency"] == pytest.approx(tokens / (80 * len(rows)), abs=1e-4)
    assert sum(bar["count"] for bar in made["lengths"]) == sum(row["position_ids"].count(0) for row in rows) == 4
    text = ftk_cli("data", "report", config(), "--packing", "true", "--cutoff_len", "80").stdout
    assert f"packing      {len(rows)} rows of 80 tokens, {100 * made['packing_efficiency']:.1f} % full" in text


@pytest.mark.parametrize(
    ("rows", "words", "said"),
    [
        ([*ROWS[:1], {"instruction": "no answer"}], [], "rows.jsonl:2"),
        ([*ROWS[:1], "{"], [], "rows.jsonl:2"),
        ([ROWS[3]], [], "train: no row is left to train on"),
        (ROWS[:1], ["--cutoff_policy", "drop", "--cutoff_len", "4"], "train: no row is left to train on"),
    ],
)
def test_data_that_would_stop_the_run_is_exit_code_1_and_one_line(ftk_cli, config, rows, words, said):
    result = ftk_cli("data", "report", config(rows), *words)
    assert result.exit_code == 1
    assert result.stdout == ""
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert said in errors[0]
    assert result.stderr.splitlines()[-1] == errors[0]


def test_malformed_rows_that_are_skipped_are_counted_and_named(ftk_cli, config, caplog):
    result = ftk_cli("data", "report", config([*ROWS[:2], "{"]), "--on_bad_row", "skip", "--json")
    (one,) = shown(result)["train"]["datasets"].values()
    assert one["dropped: malformed"] == 1
    assert [message for message in caplog.messages if "rows.jsonl:3" in message]
    assert not [message for message in caplog.messages if "1 of 3 rows" in message]


def test_a_mistake_in_the_config_is_exit_code_2(ftk_cli, config):
    result = ftk_cli("data", "report", config(), "--cuttof_len", "3")
    assert result.exit_code == 2
    assert "Did you mean cutoff_len" in result.stderr
    assert ftk_cli("data", "report", "nowhere.yaml").exit_code == 2


@given(some.lists(some.integers(0, 10_000), min_size=1, max_size=50))
def test_a_histogram_counts_each_length_once(lengths):
    bars = histogram(lengths)
    assert len(bars) <= 11
    assert [bar["count"] for bar in bars] == [
        sum(bar["from"] <= max(1, length) <= bar["to"] for length in lengths) for bar in bars
    ]
    assert sum(bar["count"] for bar in bars) == len(lengths)
    assert bars[0]["count"] > 0 < bars[-1]["count"]
