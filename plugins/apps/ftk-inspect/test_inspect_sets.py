"""The data sets of six projects in shared/data through ``ftk data report``: every row is used, or there is a reason.

Reference: the number of rows in each file, counted without ftk; the reasons were read, row by row, by a person.
"""

import csv
import json
from pathlib import Path

import pytest
from ftk import ConfigError, DataError
from ftk.registry import Registry
from ftk_inspect.report import make_report

DATA = Path(__file__).parents[4] / "shared" / "data"
MOST = 60
CHAT, SEEING = {"model_name_or_path": "ftk://tiny-chat"}, {"model_name_or_path": "ftk://random/llava"}
TOOLS = {**CHAT, "template": "qwen3"}
ALONE = {"dropped: malformed": 3}

NAMED = [
    # a name in LLaMA-Factory's dataset_info.json, the model, what the stage eats, rows that went
    ("identity", CHAT, "chat", {}), ("alpaca_en_demo", CHAT, "chat", {}), ("alpaca_zh_demo", CHAT, "chat", {}),
    ("glaive_toolcall_en_demo", TOOLS, "chat", {}), ("glaive_toolcall_zh_demo", TOOLS, "chat", {}),
    ("mllm_demo", SEEING, "chat", {}), ("mllm_audio_demo", SEEING, "chat", ALONE),
    ("mllm_video_demo", SEEING, "chat", ALONE), ("mllm_video_audio_demo", SEEING, "chat", ALONE),
    ("dpo_en_demo", CHAT, "pairs", {}), ("dpo_zh_demo", CHAT, "pairs", {}), ("kto_en_demo", CHAT, "feedback", {}),
    ("wiki_demo", CHAT, "text", {}), ("c4_demo", CHAT, "text", {}),
]  # fmt: skip
FILES = [
    ("llamafactory/reason_tool_use_demo_50.jsonl", "openai", {}, TOOLS, "chat", {}),
    ("llamafactory/v1_sft_demo.jsonl", "openai", {}, CHAT, "chat", {}),
    ("llamafactory/v1_multimodal_demo.jsonl", "openai", {}, {**SEEING, "media_dir": "../llamafactory"}, "chat", {}),
    ("llamafactory/v1_dpo_demo.jsonl", "openai",
     {"ranking": True, "columns": {"chosen": "chosen_messages", "rejected": "rejected_messages"}}, CHAT, "pairs", {}),
    ("axolotl/alpaca.json", "alpaca", {}, CHAT, "chat", {}),
    ("axolotl/conversation.json", "sharegpt", {}, CHAT, "chat", {}),
    ("axolotl/conversation.missingturns.json", "sharegpt", {}, CHAT, "chat", {}),
    ("axolotl/conversation.tokenized_llama2chat.json", "sharegpt", {}, CHAT, "chat", {"dropped: malformed": 1}),
    ("ms-swift/alpaca.csv", "alpaca", {}, CHAT, "chat", {}),
    ("ms-swift/chatml.jsonl", "openai", {}, CHAT, "chat", {}),
    ("ms-swift/conversations.jsonl", "sharegpt", {}, CHAT, "chat", {}),
    ("ms-swift/multi_modal_1.jsonl", "swift", {}, SEEING, "chat", {"dropped: malformed": 2}),
    ("ms-swift/swift_multi.jsonl", "swift", {}, CHAT, "chat", {}),
    ("ms-swift/swift_pre.jsonl", "swift", {}, CHAT, "text", {}),
    ("oumi/oumi_format.jsonl", "openai", {}, CHAT, "chat", {}),
    ("oumi/vision_language_oumi_format.jsonl", "openai", {}, SEEING, "chat", {"dropped: malformed": 2}),
    ("qwen3-vl/single_images.json", "sharegpt", {"columns": {"images": "image"}}, SEEING, "chat", ALONE),
    ("torchtune/stack_exchange_paired_tiny.json", "alpaca",
     {"ranking": True, "columns": {"prompt": "question", "chosen": "response_j", "rejected": "response_k"}},
     CHAT, "pairs", {}),
    ("unsloth/canary_dataset.jsonl", "alpaca", {"columns": {"prompt": "question", "response": "answer"}},
     CHAT, "chat", {}),
]  # fmt: skip


def num_rows(path):
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".csv":
        return len(list(csv.DictReader(text.splitlines())))
    if path.suffix == ".json":
        content = json.loads(text)
        return len(content) if isinstance(content, list) else 1
    return sum(bool(line.strip()) for line in text.split("\n"))


@pytest.fixture
def looked(tmp_path, monkeypatch):
    """``looked(eats, path, **settings)``: the counts of a data set's report; what it holds is asserted to add up."""
    if not DATA.exists():
        pytest.skip(f"{DATA} is not there")
    monkeypatch.setenv("FTK_CACHE", str(tmp_path / "cache"))

    def look(eats, path, lost, **settings):
        stage = next((name for name, spec in Registry.discover().specs("trainer").items() if spec.examples == eats), "")
        if not stage:
            pytest.skip(f"no installed stage eats {eats}")
        config = tmp_path / "c.yaml"
        config.write_text(json.dumps({"stage": stage, "finetuning_type": "full", "on_bad_row": "skip", **settings,
                                      "cutoff_len": 20_000, "max_samples": MOST}))  # fmt: skip
        wanted = min(num_rows(path), MOST)
        if sum(lost.values()) == wanted:
            with pytest.raises((DataError, ConfigError), match="no row is left"):
                make_report(str(config), [])
            return
        (facts,) = make_report(str(config), [])["train"]["datasets"].values()
        assert {why: num for why, num in facts.items() if why.startswith("dropped")} == lost
        assert facts["rows_read"] == wanted == facts["rows_used"] + sum(lost.values())

    return look


@pytest.mark.parametrize(("name", "model", "eats", "lost"), NAMED, ids=[name for name, *_ in NAMED])
def test_rows_of_llamafactory_s_demo_sets_are_used_or_have_a_reason(name, model, eats, lost, looked):
    folder = DATA / "llamafactory"
    info = json.loads((folder / "dataset_info.json").read_text()) if folder.exists() else {}
    path = folder / info.get(name, {}).get("file_name", "")
    looked(eats, path, lost, dataset=name, dataset_dir=str(folder), **model)


@pytest.mark.parametrize(
    ("file", "formatting", "fields", "model", "eats", "lost"), FILES, ids=[one[0] for one in FILES]
)
def test_rows_of_other_projects_are_used_or_have_a_reason(
    file, formatting, fields, model, eats, lost, looked, tmp_path
):
    if "media_dir" in model:  # its paths begin with data/
        (tmp_path / "data").symlink_to(DATA / "llamafactory")
        model = {**model, "media_dir": str(tmp_path)}
    looked(
        eats, DATA / file, lost, dataset=[{"file_name": str(DATA / file), "formatting": formatting, **fields}], **model
    )
