"""The optimizer step and the peak memory of ``ftk run`` against a bare PyTorch loop over the same batches.

    python tests/benchmarks/step.py [ROUNDS]

A random Llama of 7.6 M parameters, LoRA of rank 8 on every linear layer, fp32, batches of 4 x 512 tokens, AdamW, no
gradient checkpointing, one log line per step: the setting of the peers' table in the README beside this file. Both
sides run as whole processes in turn; a step is the median time between two log lines, the first five left out.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import statistics
import sys
import tempfile
from pathlib import Path

from timing import machine, measure

STEPS, BATCH, TOKENS, RANK = 25, 4, 512, 8
SIZE = "hidden_size=256&intermediate_size=688&num_hidden_layers=6&num_attention_heads=4&num_key_value_heads=4"
MODEL = f"ftk://random/llama?{SIZE}"

CONFIG = f"""
model_name_or_path: {MODEL}
stage: sft
finetuning_type: lora
lora_rank: {RANK}
lora_target: all
template: chatml
dataset: rows.jsonl
cutoff_len: {TOKENS}
output_dir: out
overwrite_output_dir: true
per_device_train_batch_size: {BATCH}
max_steps: {STEPS}
learning_rate: 1.0e-4
lr_scheduler_type: constant
disable_gradient_checkpointing: true
disable_shuffling: true
logging_steps: 1
save_strategy: "no"
"""

BARE = """
import json, sys, time
import numpy as np, torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

torch.manual_seed(0)
folder, batches, out = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(folder, use_cache=False)
lora = LoraConfig(r={rank}, lora_alpha={alpha}, target_modules="all-linear", task_type="CAUSAL_LM")
model = get_peft_model(model, lora)
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
data = np.load(batches)
model.train()
times = []
for ids, labels in zip(data["input_ids"], data["labels"]):
    batch = {{"input_ids": torch.tensor(ids), "labels": torch.tensor(labels)}}
    loss = model(**batch, attention_mask=torch.ones_like(batch["input_ids"])).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    print(loss.item())
    times.append(time.perf_counter())
json.dump(times, open(out, "w"))
"""


def write_rows(path: Path) -> None:
    """Rows that are longer than the cutoff, so that every batch is full."""
    words = [
        "the",
        "red",
        "bird",
        "sings",
        "a",
        "song",
        "about",
        "rain",
        "and",
        "seven",
        "small",
        "boats",
        "near",
        "the",
        "old",
        "green",
        "house",
    ]
    rng = random.Random(0)
    with path.open("w") as file:
        for _ in range(STEPS * BATCH):
            text = " ".join(rng.choice(words) for _ in range(3 * TOKENS))
            file.write(json.dumps({"instruction": "Tell me more.", "output": text}) + "\n")


def save_batches(folder: Path) -> None:
    """The very batches of the run, read through ftk's own rows."""
    import numpy as np
    from ftk.opening import plan_run
    from ftk.run import Run

    rows = Run(plan_run("run.yaml", [])).rows("train")
    ids = np.array([rows[index]["input_ids"] for index in range(STEPS * BATCH)])
    labels = np.array([rows[index]["labels"] for index in range(STEPS * BATCH)])
    shape = (STEPS, BATCH, TOKENS)
    np.savez(folder / "batches.npz", input_ids=ids.reshape(shape), labels=labels.reshape(shape))


def model_folder() -> str:
    from ftk.opening import plan_run
    from ftk.run import Run

    return Run(plan_run("run.yaml", [])).model_path


def step_times(moments: list[float]) -> list[float]:
    return [later - earlier for earlier, later in itertools.pairwise(moments[4:])]


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.chdir(folder)
        write_rows(folder / "rows.jsonl")
        (folder / "run.yaml").write_text(CONFIG)
        (folder / "bare.py").write_text(BARE.format(rank=RANK, alpha=2 * RANK))
        save_batches(folder)
        bare = [sys.executable, "bare.py", model_folder(), "batches.npz", "bare.json"]
        ours = [str(Path(sys.executable).with_name("ftk")), "run", "run.yaml"]
        ratios, memory = [], []
        for _ in range(rounds):
            bare_cost, ftk_cost = measure(bare), measure(ours)
            bare_s = statistics.median(step_times(json.loads((folder / "bare.json").read_text())))
            lines = [json.loads(line) for line in (folder / "out" / "trainer_log.jsonl").read_text().splitlines()]
            ftk_s = statistics.median(step_times([line["seconds"] for line in lines if "loss" in line]))
            ratios.append(ftk_s / bare_s)
            memory.append(ftk_cost.peak_mib / bare_cost.peak_mib)
            print(f"bare {bare_s * 1000:.0f} ms {bare_cost.peak_mib:.0f} MiB", end=", ")
            print(f"ftk {ftk_s * 1000:.0f} ms {ftk_cost.peak_mib:.0f} MiB")
        print(f"step {statistics.median(ratios):.3f} x, peak memory {statistics.median(memory):.3f} x the bare loop")


if __name__ == "__main__":
    main()
