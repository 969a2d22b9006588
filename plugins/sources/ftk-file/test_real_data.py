"""Reference: the data sets of six projects in shared/data, their rows counted with the standard library. Every row is
an example of the kind that its project trains, or a malformed one whose reason is known."""

import csv
import json
from collections import Counter
from importlib import import_module
from pathlib import Path

import pytest
from ftk import ChatExample, DataError, DatasetEntry, FeedbackExample, PairExample, TextExample
from ftk_file.rows import open_rows

DATA = Path(__file__).parents[4] / "shared" / "data"
CODE = {
    "alpaca": "ftk_alpaca.converting", "sharegpt": "ftk_sharegpt.converting", "openai": "ftk_openai.converting",
    "swift": "ftk_swift.converting", "text": "ftk_text",
}  # fmt: skip
V1_PAIRS = {"ranking": True, "columns": {"chosen": "chosen_messages", "rejected": "rejected_messages"}}
VISION_PAIRS = {"ranking": True, "columns": {"images": "images"}}
NO_MARKS = {"has 1 images more than <image> placeholders": 3}
TOKENS = {
    "has no column 'conversations'. Its columns: input_ids, labels, attention_mask. "
    "Name the right one under columns, or the layout of such rows under formatting": 1
}

SETS = [
    # file, converter, the entry's other fields, examples, malformed rows
    ("llamafactory/reason_tool_use_demo_50.jsonl", "openai", {}, {ChatExample: 50}, {}),
    ("llamafactory/v1_sft_demo.jsonl", "openai", {}, {ChatExample: 500}, {}),
    ("llamafactory/v1_multimodal_demo.jsonl", "openai", {}, {ChatExample: 24}, {}),
    ("llamafactory/v1_dpo_demo.jsonl", "openai", V1_PAIRS, {PairExample: 10}, {}),
    ("llamafactory/wiki_demo.txt", "text", {}, {TextExample: 30}, {}),
    ("llamafactory/c4_demo.jsonl", "text", {}, {TextExample: 300}, {}),
    ("axolotl/alpaca.json", "alpaca", {}, {ChatExample: 2}, {}),
    ("axolotl/conversation.json", "sharegpt", {}, {ChatExample: 1}, {}),
    ("axolotl/conversation.missingturns.json", "sharegpt", {}, {ChatExample: 1}, {}),
    ("axolotl/conversation.tokenized_llama2chat.json", "sharegpt", {}, {}, TOKENS),
    ("ms-swift/alpaca.csv", "alpaca", {}, {ChatExample: 3}, {}),
    ("ms-swift/alpaca.jsonl", "alpaca", {}, {ChatExample: 3}, {}),
    ("ms-swift/alpaca2.csv", "alpaca", {}, {ChatExample: 3}, {}),
    ("ms-swift/chatml.jsonl", "openai", {}, {ChatExample: 3}, {}),
    ("ms-swift/chatml.jsonl", "swift", {}, {ChatExample: 3}, {}),
    ("ms-swift/conversations.jsonl", "sharegpt", {}, {ChatExample: 3}, {}),
    ("ms-swift/conversations.jsonl", "swift", {}, {ChatExample: 3}, {}),
    ("ms-swift/multi_modal_1.jsonl", "swift", {}, {ChatExample: 3}, {}),
    ("ms-swift/multi_modal_2.jsonl", "swift", {}, {ChatExample: 3}, {}),
    ("ms-swift/multi_modal_3.jsonl", "swift", {}, {ChatExample: 3}, {}),
    ("ms-swift/sharegpt.jsonl", "swift", {}, {ChatExample: 3}, {}),
    ("ms-swift/swift_multi.json", "swift", {}, {ChatExample: 3}, {}),
    ("ms-swift/swift_multi.jsonl", "swift", {}, {ChatExample: 3}, {}),
    ("ms-swift/swift_pre.jsonl", "swift", {}, {TextExample: 3}, {}),
    ("ms-swift/swift_single.jsonl", "swift", {}, {ChatExample: 3}, {}),
    ("oumi/alpaca_format.json", "alpaca", {}, {ChatExample: 2}, {}),
    ("oumi/alpaca_format.jsonl", "alpaca", {}, {ChatExample: 2}, {}),
    ("oumi/judge_input.jsonl", "alpaca", {"columns": {"prompt": "request", "response": "response"}},
     {ChatExample: 4}, {}),
    ("oumi/oumi_format.json", "openai", {}, {ChatExample: 2}, {}),
    ("oumi/oumi_format.jsonl", "openai", {}, {ChatExample: 2}, {}),
    ("oumi/vision_language_dpo_format.jsonl", "openai", VISION_PAIRS, {}, NO_MARKS),
    ("oumi/vision_language_oumi_format.jsonl", "openai", {}, {ChatExample: 2}, {}),
    ("qwen3-vl/single_images.json", "sharegpt", {"columns": {"images": "image"}}, {ChatExample: 3}, {}),
    ("qwen3-vl/video.json", "sharegpt", {"columns": {"videos": "video"}}, {ChatExample: 3}, {}),
    ("torchtune/alpaca_tiny.json", "alpaca", {}, {ChatExample: 100}, {}),
    ("torchtune/chat_tiny.json", "sharegpt", {}, {ChatExample: 1}, {}),
    ("torchtune/stack_exchange_paired_tiny.json", "alpaca",
     {"ranking": True, "columns": {"prompt": "question", "chosen": "response_j", "rejected": "response_k"}},
     {PairExample: 25}, {}),
    ("unsloth/canary_dataset.jsonl", "alpaca", {"columns": {"prompt": "question", "response": "answer"}},
     {ChatExample: 6}, {}),
]  # fmt: skip
OF_LLAMAFACTORY = {
    "identity": {ChatExample: 91}, "alpaca_en_demo": {ChatExample: 999}, "alpaca_zh_demo": {ChatExample: 1000},
    "glaive_toolcall_en_demo": {ChatExample: 300}, "glaive_toolcall_zh_demo": {ChatExample: 300},
    "mllm_demo": {ChatExample: 6}, "mllm_audio_demo": {ChatExample: 3}, "mllm_video_demo": {ChatExample: 3},
    "mllm_video_audio_demo": {ChatExample: 3}, "dpo_en_demo": {PairExample: 300}, "dpo_zh_demo": {PairExample: 300},
    "kto_en_demo": {FeedbackExample: 300}, "wiki_demo": {TextExample: 30}, "c4_demo": {TextExample: 300},
}  # fmt: skip
"""Names in its dataset_info.json, whose entries are used as they are."""


def num_rows(path):
    """Counted without ftk."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".csv":
        return len(list(csv.DictReader(text.splitlines())))
    if path.suffix == ".json":
        content = json.loads(text)
        return len(content) if isinstance(content, list) else 1
    return sum(bool(line.strip()) for line in text.split("\n"))


def walked(path, converter, fields):
    """(kind of example → how many, reason → how many rows are malformed for it)."""
    convert = pytest.importorskip(CODE[converter]).convert
    entry = DatasetEntry("made", {"file_name": path.name, **fields}, "the test", str(path.parent))
    examples, reasons = Counter(), Counter()
    for row in open_rows(entry, None):
        try:
            examples[type(convert(row, entry))] += 1
        except DataError as error:
            reasons[str(error)] += 1
    assert examples.total() + reasons.total() == num_rows(path)
    return dict(examples), dict(reasons)


@pytest.fixture(autouse=True)
def _data():
    if not DATA.exists():
        pytest.skip(f"{DATA} is not there")


@pytest.mark.parametrize(("file", "converter", "fields", "examples", "reasons"), SETS)
def test_every_row_is_an_example_or_has_a_known_reason(file, converter, fields, examples, reasons):
    assert walked(DATA / file, converter, fields) == (examples, reasons)


@pytest.mark.parametrize("name", OF_LLAMAFACTORY)
def test_every_row_of_llamafactory_s_demo_sets_is_an_example(name):
    fields = json.loads((DATA / "llamafactory" / "dataset_info.json").read_text())[name]
    path = DATA / "llamafactory" / fields["file_name"]
    assert walked(path, fields.get("formatting", "alpaca"), fields) == (OF_LLAMAFACTORY[name], {})


def test_no_file_of_rows_is_left_out():
    info = json.loads((DATA / "llamafactory" / "dataset_info.json").read_text())
    named = {file for file, *_ in SETS} | {f"llamafactory/{info[name]['file_name']}" for name in OF_LLAMAFACTORY}
    there = {
        str(path.relative_to(DATA)) for path in DATA.rglob("*") if path.suffix in (".json", ".jsonl", ".csv", ".txt")
    }
    assert there - named == {"llamafactory/dataset_info.json"}


def test_calls_in_real_data_are_read_as_calls():
    """427 turns of function_call in the glaive sets and 68 parts of tool_call in the other, counted by their marks."""
    found = Counter()
    for file, converter, mark in (
        ("glaive_toolcall_en_demo.json", "sharegpt", '"function_call"'),
        ("glaive_toolcall_zh_demo.json", "sharegpt", '"function_call"'),
        ("reason_tool_use_demo_50.jsonl", "openai", '"type": "tool_call"'),
    ):
        path = DATA / "llamafactory" / file
        module = import_module(CODE[converter])
        entry = DatasetEntry("made", {"file_name": file}, "the test", str(path.parent))
        for row in open_rows(entry, None):
            found[file] += sum(len(turn.tool_calls) for turn in module.convert(row, entry).messages)
        assert found[file] == path.read_text(encoding="utf-8").count(mark)
    assert sorted(found.values()) == [68, 211, 216]
