"""What GPTQ is given, against the texts themselves; the rounding is in tests/e2e/test_quantised_exports.py, which needs
its back end. The meaning of LLaMA-Factory's keys: export_quantization_bit alone is gptq."""

import json

import pytest
import torch
from ftk import ConfigError, DataError
from ftk.opening import open_run
from ftk.testing import check_plugin
from ftk_export.by_gptqmodel import group_size
from ftk_export.calibration import texts
from ftk_export.writing import check_target

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


@pytest.fixture(autouse=True)
def _back_end_is_there(monkeypatch):
    """Planning looks whether it is installed; nothing here imports it."""
    monkeypatch.setattr("ftk.plugins._is_installed", lambda package: True)


def exporting(folder, *words, rows=(), **keys):
    (folder / "rows.json").write_text(json.dumps(list(rows)))
    keys = {"model_name_or_path": "ftk://random/llama", "template": "chatml", "export_dir": str(folder / "out"), **keys}
    (folder / "model.yaml").write_text(json.dumps(keys))
    return open_run("export", str(folder / "model.yaml"), words)


def test_the_plugin_keeps_the_contract():
    assert check_plugin("export-gptq")


def test_bits_without_a_format_mean_gptq_and_nothing_else_does(tmp_path):
    assert exporting(tmp_path, export_quantization_bit=4).plan.one("export_format").name == "gptq"
    assert exporting(tmp_path).plan.one("export_format").name == "safetensors"
    both = exporting(tmp_path, export_quantization_bit=4, export_format="bnb")
    assert both.plan.one("export_format").name == "bnb"


def test_bits_that_it_has_not_and_no_texts_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="5: gptq can do 2, 3, 4, 8"):
        check_target(exporting(tmp_path, export_quantization_bit=5))
    with pytest.raises(ConfigError, match=r"gptq looks at texts while it rounds\. Give export_quantization_dataset"):
        check_target(exporting(tmp_path, export_quantization_bit=4))


def test_long_texts_give_a_piece_and_short_ones_all(tmp_path):
    rows = [{"text": " ".join(WORDS[: 2 + i])} for i in range(8)]
    keys = {"export_quantization_bit": 4, "export_quantization_dataset": "rows.json", "rows": rows}
    run = exporting(tmp_path, export_quantization_nsamples=6, export_quantization_maxlen=5, **keys)
    found = texts(run)
    assert len(found) == 6
    whole = [run.tokenizer(row["text"], add_special_tokens=False)["input_ids"] for row in rows]
    for ids in found:
        assert any(ids == one[i : i + min(5, len(one))] for one in whole for i in range(len(one)))
        assert len(ids) <= 5
    assert found == texts(exporting(tmp_path, export_quantization_nsamples=6, export_quantization_maxlen=5, **keys))


def test_conversations_are_written_with_the_template(tmp_path):
    rows = [{"instruction": "Hi", "output": "Ho"}]
    run = exporting(tmp_path, export_quantization_bit=4, export_quantization_dataset="rows.json", rows=rows)
    (ids,) = texts(run)
    wanted = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHo<|im_end|>\n"
    assert run.tokenizer.decode(ids) == wanted
    empty = exporting(tmp_path, export_quantization_bit=4, export_quantization_dataset="rows.json", rows=[{"text": ""}])
    with pytest.raises(DataError, match=r"rows\.json has no text"):
        texts(empty)


def test_the_largest_group_that_divides_every_row_is_taken():
    layers = lambda *widths: torch.nn.ModuleList(torch.nn.Linear(width, 2) for width in widths)  # noqa: E731
    assert [group_size(layers(*widths)) for widths in ((256, 128), (256, 96), (30,))] == [128, 32, -1]
