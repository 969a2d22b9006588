"""Peak memory and speed of the chunked loss against the model's own, at a vocabulary of 150,000.

    python tests/benchmarks/chunked_loss.py [ROUNDS] [TOKENS]

A random Llama of width 256 whose output layer has 150,000 rows, fp32 on the CPU, one row of TOKENS tokens (4,096). Each
case is a process of its own that takes one warm-up step and three that are timed, forward and backward; memory is its
highest resident set above that of a process that computes hidden states and no loss. Trained: every token, or the
quarter that an answer is; learning: a LoRA of rank 8, or every weight. Losses and gradient norms are compared.
"""

from __future__ import annotations

import itertools
import json
import statistics
import subprocess
import sys

from timing import machine

WORDS, WIDTH = 150_000, 256

STEP = f"""
import json, resource, sys, time
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM
from ftk_chunked_loss.patching import ChunkedForward

loss_of, trained, learning, tokens = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
torch.manual_seed(0)
config = LlamaConfig(vocab_size={WORDS}, hidden_size={WIDTH}, intermediate_size=2 * {WIDTH}, num_hidden_layers=1,
                     num_attention_heads=4, use_cache=False)
model = LlamaForCausalLM(config)
if loss_of == "chunked":
    chunked = ChunkedForward(model, "model", None)
    assert not chunked.differs(model)
    chunked.install(model)
if learning == "lora":
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=8, target_modules="all-linear"))
ids = torch.randint(0, {WORDS}, (1, tokens))
labels = ids.clone()
if trained == "quarter":
    labels[:, : 3 * tokens // 4] = -100
times = []
for step in range(4):
    begin = time.perf_counter()
    if loss_of == "none":
        base = model.get_base_model() if learning == "lora" else model
        loss = base.model(input_ids=ids).last_hidden_state.square().mean()
    else:
        loss = model(input_ids=ids, labels=labels).loss
    loss.backward()
    norm = sum(one.grad.double().square().sum() for one in model.parameters() if one.grad is not None).sqrt()
    times.append(time.perf_counter() - begin)
    model.zero_grad()
print(json.dumps({{"s": min(times[1:]), "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                  "loss": float(loss), "norm": float(norm)}}))
"""


def once(*arguments: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, "-c", STEP, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def main(rounds: int = 3, tokens: int = 4096) -> None:
    print(machine())
    print(f"{tokens} tokens, {WORDS:,} words, width {WIDTH}; MiB above a process without a loss, median of {rounds}\n")
    print("| learning | trained | own loss MiB | chunked MiB | own s | chunked s | loss apart | gradient apart |")
    print("|---|---|---|---|---|---|---|---|")
    for learning, trained in itertools.product(("lora", "full"), ("all", "quarter")):
        found: dict[str, list[dict[str, float]]] = {"none": [], "own": [], "chunked": []}
        for _ in range(rounds):
            for loss_of, results in found.items():
                results.append(once(loss_of, trained, learning, str(tokens)))
        middle = {
            name: {key: statistics.median(one[key] for one in results) for key in ("s", "mib", "loss", "norm")}
            for name, results in found.items()
        }
        own, chunked, base = middle["own"], middle["chunked"], middle["none"]["mib"]
        apart = [abs(chunked[key] - own[key]) / own[key] for key in ("loss", "norm")]
        print(
            f"| {learning} | {trained} | {own['mib'] - base:,.0f} | {chunked['mib'] - base:,.0f} | {own['s']:.2f} | "
            f"{chunked['s']:.2f} | {apart[0]:.1e} | {apart[1]:.1e} |",
            flush=True,
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
