"""The main job on real input: LoRA on LLaMA-Factory's own data sets through their ``dataset_info.json``.

The data lie beside the repository in ``../shared``; without them these tests are skipped.
"""

import json
from pathlib import Path

import pytest

DATA = Path(__file__).parents[3] / "shared" / "data" / "llamafactory"
pytestmark = pytest.mark.skipif(not DATA.exists(), reason="../shared/data is not beside the repository")

CONFIG = """
model_name_or_path: {model}
stage: sft
finetuning_type: lora
lora_rank: 8
lora_target: all
dataset: identity,alpaca_en_demo
dataset_dir: {data}
max_samples: 40
cutoff_len: 128
output_dir: out
per_device_train_batch_size: 4
learning_rate: 1.0e-2
lr_scheduler_type: cosine
num_train_epochs: {epochs}
logging_steps: 1
save_strategy: "no"
"""


@pytest.mark.parametrize(
    ("model", "template", "epochs", "falls_to"),
    [
        ("ftk://tiny-chat", None, 2, 0.8),
        ("ftk://random/qwen2", "qwen", 2, 0.985),
        ("ftk://random/llama", "llama3", 2, 0.985),
    ],
)
def test_lora_on_real_rows_learns_reloads_and_chats(model, template, epochs, falls_to, tmp_path, monkeypatch, ftk_cli):
    """A random model learns little, because LoRA leaves its random embeddings alone; it must learn all the same."""
    monkeypatch.chdir(tmp_path)
    text = CONFIG.format(model=model, data=DATA, epochs=epochs) + (f"template: {template}\n" if template else "")
    (tmp_path / "train.yaml").write_text(text)
    done = ftk_cli("run", "train.yaml")
    assert done.exit_code == 0, done.output
    log = [json.loads(line) for line in (tmp_path / "out" / "trainer_log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in log if "loss" in line]
    assert sum(losses[-5:]) < falls_to * sum(losses[:5])
    report = json.loads((tmp_path / "out" / "data_report.json").read_text())
    assert {"identity", "alpaca_en_demo"} <= set(str(report).replace("'", " ").replace(":", " ").split())
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["status"] == "finished"
    assert set(record["data"]) == {"identity", "alpaca_en_demo"}
    ask = ("chat", "out", "--prompt", "Who are you?", "--do_sample", "false", "--max_new_tokens", "12")
    learnt, again, base = ftk_cli(*ask), ftk_cli(*ask), ftk_cli(*ask, "--base")
    assert learnt.exit_code == base.exit_code == 0, learnt.output
    assert learnt.stdout == again.stdout
    assert learnt.stdout != base.stdout
