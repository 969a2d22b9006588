"""SFT at 4,096 packed tokens on a GPU: tokens per second, peak memory and share of the card's bf16 peak.

    python tests/benchmarks/gpu_sft.py [--trl PYTHON] [--methods lora full] [--steps 20] [--rounds 3] [--tiny]

A model of the shape of Qwen2.5-1.5B with random bf16 weights, rows of lengths as real sets have them (log-normal), one
packed row a step, activations recomputed, AdamW. Sides: ``ftk`` (bf16 with LoRA, pure_bf16 with all weights), ``trl``
(SFTTrainer with its best flags: packing, fused AdamW, FlashAttention and Liger where they are installed), ``bare`` (a
loop over the very rows of ftk, with transformers' model as it is). Each is a process of its own; they take turns within
a round, a step is the median one, and a figure is the median of the rounds. ``--tiny`` tries everything on a CPU with a
small model.

The share is of what the model needs, not of what recomputing adds: 6 N for each token (N: weights of all matrix
products, the output layer among them); with LoRA, whose base needs no gradients of its own, 4 N and 6 for each weight
of the adapters. Attention adds 6 L H S (L layers, H wide, S: the sum of the squares of the documents' lengths, half of
which a causal mask leaves: 2 products of 2 H S / 2 forward, twice that backward).
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from timing import machine, measure

PEAKS = {"H100 PCIe": 756e12, "H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Part of a device's name → its dense bf16 FLOPs per second, by NVIDIA's data sheets; the first that fits counts."""
SHAPE = {
    "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12,
    "num_key_value_heads": 2, "vocab_size": 151936, "max_position_embeddings": 32768, "tie_word_embeddings": True,
}  # fmt: skip
TINY = {
    **SHAPE, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "vocab_size": 4096,
}  # fmt: skip
WARM, RANK = 4, 8
"""Steps that are left out, and LoRA's rank."""
WORDS = ("the", "red", "bird", "sings", "a", "song", "about", "rain", "and", "seven", "small", "boats", "near", "old")
COMPUTES = {"lora": {"bf16": True}, "full": {"pure_bf16": True}}


# What the sides read, made once in the working directory


def write_inputs(given: argparse.Namespace) -> None:
    """model/, rows for both, run.yaml, and ``rows.json``: token ids, labels and positions of each packed row of ftk."""
    import torch
    from ftk.opening import plan_run
    from ftk.run import Run
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    rng, cutoff = random.Random(0), 256 if given.tiny else 4096
    ours, theirs = [], []
    for _ in range((given.steps + 2) * 14):
        size = int(min(max(rng.lognormvariate(5.0, 0.8), 12), 1200)) // (8 if given.tiny else 1) + 2
        prompt, answer = (" ".join(rng.choices(WORDS, k=1 + size * share // 3)) for share in (1, 2))
        ours.append({"instruction": prompt, "output": answer})
        turns = [{"role": "user", "content": prompt}], [{"role": "assistant", "content": answer}]
        theirs.append({"prompt": turns[0], "completion": turns[1]})
    for name, rows in (("ours", ours), ("theirs", theirs)):
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {
        "model_name_or_path": "ftk://random/qwen2", "stage": "sft", "dataset": "ours.jsonl", "cutoff_len": cutoff,
        "packing": True, "output_dir": "out", "overwrite_output_dir": True, "per_device_train_batch_size": 1,
        "max_steps": given.steps, "lora_rank": RANK, "logging_steps": 1, "save_strategy": "no", "plot_loss": False,
        "gradient_checkpointing": True, "learning_rate": 1e-5, "disable_shuffling": True,
    }  # fmt: skip
    Path("run.yaml").write_text(json.dumps(settings))  # JSON is YAML
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    model = Qwen2ForCausalLM(Qwen2Config(**(TINY if given.tiny else SHAPE)))
    torch.set_default_dtype(torch.float32)
    model.save_pretrained("model")
    AutoTokenizer.from_pretrained(Run(plan_run("run.yaml", [])).model_path).save_pretrained("model")
    settings["model_name_or_path"] = "model"
    for method, more in COMPUTES.items():
        Path(f"{method}.yaml").write_text(json.dumps(settings | {"finetuning_type": method} | more))
    rows = Run(plan_run("lora.yaml", [])).rows("train")
    if len(rows) < given.steps:
        raise RuntimeError(f"{len(rows)} packed rows for {given.steps} steps")
    names = ("input_ids", "labels", "position_ids")
    saved = [{name: [int(one) for one in rows[number][name]] for name in names} for number in range(given.steps)]
    Path("rows.json").write_text(json.dumps(saved))


# Sides: each leaves what :func:`finished` takes in side.json


def finished(moments: list[float], tokens: int) -> None:
    """Seconds at the end of each step, and the tokens of all."""
    import resource

    import torch

    gpu = torch.cuda.is_available()
    peak = torch.cuda.max_memory_allocated() if gpu else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    name = torch.cuda.get_device_name() if gpu else "CPU"
    Path("side.json").write_text(json.dumps({"moments": moments, "tokens": tokens, "peak": peak, "device": name}))


def installed(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(name) is not None


def side_ftk(method: str) -> None:
    from ftk.opening import plan_run
    from ftk.run import execute

    extra = ["enable_liger_kernel=true"] if liger() else []
    execute(plan_run(f"{method}.yaml", extra))
    lines = [json.loads(line) for line in Path("out/trainer_log.jsonl").read_text().splitlines()]
    lines = [line for line in lines if "loss" in line]
    finished([line["seconds"] for line in lines], lines[-1]["num_tokens"])


def liger() -> bool:
    """Liger's kernels are taken by ftk and TRL alike, where both have them and there is a GPU."""
    import torch

    return torch.cuda.is_available() and installed("liger_kernel")


def attention() -> str:
    return "flash_attention_2" if installed("flash_attn") else "sdpa"


def side_trl(method: str) -> None:
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    settings = json.loads(Path("run.yaml").read_text())
    moments, tokens = [], []

    class Clock(TrainerCallback):
        def on_step_end(self, *arguments: Any, **named: Any) -> None:
            moments.append(time.perf_counter())

    class Counting(SFTTrainer):
        def training_step(self, model: Any, inputs: Any, *more: Any) -> Any:
            tokens.append(inputs["input_ids"].numel())
            return super().training_step(model, inputs, *more)

    tokenizer = AutoTokenizer.from_pretrained("model")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    arguments = SFTConfig(
        output_dir="trl", max_steps=settings["max_steps"], per_device_train_batch_size=1, learning_rate=1e-5, bf16=True,
        gradient_checkpointing=True, report_to="none", logging_steps=1, save_strategy="no", packing=True,
        max_length=settings["cutoff_len"], disable_tqdm=True, optim="adamw_torch_fused", use_liger_kernel=liger(),
        use_cpu=not torch.cuda.is_available(),
    )  # fmt: skip
    trainer = Counting(
        model=AutoModelForCausalLM.from_pretrained("model", dtype=torch.bfloat16, attn_implementation=attention()),
        args=arguments, processing_class=tokenizer, callbacks=[Clock()],
        train_dataset=Dataset.from_list([json.loads(line) for line in Path("theirs.jsonl").read_text().splitlines()]),
        peft_config=LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear") if method == "lora" else None,
    )  # fmt: skip
    trainer.train()
    finished(moments, sum(tokens))


def side_bare(method: str) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained("model", dtype=torch.bfloat16, attn_implementation=attention())
    model = model.to(device)
    if method == "lora":
        model.enable_input_require_grads()
        model = get_peft_model(model, LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear"))
    model.gradient_checkpointing_enable()
    model.train()
    learning = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-5, weight_decay=0.0, fused=True)
    rows = json.loads(Path("rows.json").read_text())
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / len(rows))
    moments = []
    for row in rows:
        batch = {name: torch.tensor([values], device=device) for name, values in row.items()}
        batch["labels"][batch["position_ids"] == 0] = -100
        with torch.autocast(device, torch.bfloat16):
            loss = model(**batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        loss.item()
        moments.append(time.perf_counter())
    finished(moments, sum(len(row["input_ids"]) for row in rows))


SIDES = {"ftk": side_ftk, "trl": side_trl, "bare": side_bare}


# What comes of it


def flops_per_token(method: str, shape: dict[str, Any]) -> float:
    """Of forward and backward, see above; the mean over the packed rows of ftk."""
    wide, inner, layers = (shape[name] for name in ("hidden_size", "intermediate_size", "num_hidden_layers"))
    keys = wide // shape["num_attention_heads"] * shape["num_key_value_heads"]
    products = [(wide, wide), (wide, keys), (wide, keys), (wide, wide), *[(wide, inner)] * 3]
    weights = layers * sum(one * other for one, other in products) + wide * shape["vocab_size"]
    adapter = layers * sum(RANK * (one + other) for one, other in products)
    tokens, squares = 0, 0
    for row in json.loads(Path("rows.json").read_text()):
        starts = [at for at, position in enumerate(row["position_ids"]) if position == 0]
        ends = [*starts[1:], len(row["position_ids"])]
        tokens += len(row["position_ids"])
        squares += sum((end - start) ** 2 for start, end in zip(starts, ends, strict=True))
    attention = 6 * layers * wide * squares / tokens
    return (6 * weights if method == "full" else 4 * weights + 6 * adapter) + attention


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl", help="a Python that has TRL; without it that side is left out")
    parser.add_argument("--methods", nargs="+", default=list(COMPUTES), choices=list(COMPUTES))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--side", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        return SIDES[given.side[0]](given.side[1])
    print(machine())
    pythons = {"ftk": sys.executable, "bare": sys.executable, **({"trl": given.trl} if given.trl else {})}
    script, shape = str(Path(__file__).resolve()), TINY if given.tiny else SHAPE
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        write_inputs(given)
        for method in given.methods:
            found: dict[str, list[tuple[float, float]]] = {name: [] for name in pythons}
            device = ""
            for number in range(given.rounds):
                for name in list(pythons) if number % 2 else reversed(pythons):
                    measure([pythons[name], script, "--side", name, method])
                    made = json.loads(Path("side.json").read_text())
                    device, moments = made["device"], made["moments"]
                    times = [after - before for before, after in itertools.pairwise(moments[WARM - 1 :])]
                    rate = made["tokens"] / len(moments) / statistics.median(times)
                    found[name].append((rate, made["peak"]))
            peak = next((peak for part, peak in PEAKS.items() if part in device), None)
            for name, rounds in found.items():
                speed, memory = (statistics.median(column) for column in zip(*rounds, strict=True))
                share = f"{speed * flops_per_token(method, shape) / peak:.1%} of the peak" if peak else "no known peak"
                print(f"{method}, {name}: {speed:,.0f} tokens/s, {memory / 2**30:.2f} GiB, {share} ({device})")
        os.chdir("/")


if __name__ == "__main__":
    main()
