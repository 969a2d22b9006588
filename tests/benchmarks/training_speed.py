"""Tokens per second and peak memory of stages of training, against TRL's trainer for the same stage.

    python tests/benchmarks/training_speed.py [STAGE ...] [--trl PYTHON] [--rounds 5] [--steps 20] [--method lora]

One random Llama of 7.6 M parameters, the same rows, in fp32 on the CPU, without checkpointing of activations, one log
line per step. Each side is a whole process; they take turns within a round. Tokens are those of the rows, each answer
with its prompt, whatever a trainer computes of them, so the rate says how soon the rows are done; TRL's side counts its
own and must come to the same. A step is the median time between two log lines, the first three left out. Packed rows
make an epoch of about ``--steps`` steps, a row of at most 1,024 tokens each, in which each side packs as it does.

A further stage is a line in ``STAGES``: rows, the YAML's keys for each way that ftk does it, and TRL's trainer.
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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from timing import machine, measure

BATCH, PROMPT, ANSWERS = 4, 110, (20, 70)
"""Rows or pairs of a step, words of a prompt, fewest and most words of an answer."""
CUTOFF, PACKED = 1024, 5
"""Most tokens of a row, and rows written for each packed one, of which it holds about as many."""
MODEL = (
    "ftk://random/llama?hidden_size=256&intermediate_size=688&num_hidden_layers=6&num_attention_heads=4"
    "&num_key_value_heads=4"
)
WORDS = ("the", "red", "bird", "sings", "a", "song", "about", "rain", "and", "seven", "small", "boats", "near", "old")

TRL = """
import json, sys, time, torch
from datasets import Dataset
from peft import LoraConfig
from transformers import {model}, AutoTokenizer, TrainerCallback
from trl import {config}, {trainer}

folder, rows, out, steps, batch, method = sys.argv[1:]
torch.manual_seed(0)
times, tokens = [], []

class Clock(TrainerCallback):
    def on_step_end(self, *arguments, **named):
        times.append(time.perf_counter())

class Counting({trainer}):
    def training_step(self, model, inputs, *more):
        mask = inputs.get("attention_mask")
        tokens.append(int(inputs["input_ids"].numel() if mask is None else mask.sum()))
        return super().training_step(model, inputs, *more)

tokenizer = AutoTokenizer.from_pretrained(folder)
tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
arguments = {config}(
    output_dir=out + ".dir", max_steps=int(steps), num_train_epochs=1, per_device_train_batch_size=int(batch),
    learning_rate=1e-4, lr_scheduler_type="constant", bf16=False, gradient_checkpointing=False, use_cpu=True,
    report_to="none", logging_steps=1, save_strategy="no", max_length={cutoff}, disable_tqdm=True, **{flags},
)
trainer = Counting(
    model={model}.from_pretrained(folder, dtype=torch.float32, **{loading}), args=arguments, processing_class=tokenizer,
    train_dataset=Dataset.from_list([json.loads(line) for line in open(rows)]), callbacks=[Clock()],
    peft_config=LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", **{adapting}) if method == "lora" else None,
)
trainer.train()
json.dump({{"times": times, "tokens": tokens}}, open(out, "w"))
"""


@dataclass(frozen=True)
class Stage:
    """rows(number) -> (what ftk reads, what TRL reads), deterministic. entry: what ftk's data set says of its rows.

    ways: name → keys of the YAML beside those of all. packed: rows are packed, one row a step.
    config, trainer: TRL's classes. model: the class of its model; loading, adapting, flags: further arguments of that,
    of its LoRA and of its config.
    """

    rows: Callable[[int], tuple[dict[str, Any], dict[str, Any]]]
    entry: dict[str, Any]
    ways: dict[str, dict[str, Any]]
    config: str
    trainer: str
    model: str = "AutoModelForCausalLM"
    loading: dict[str, Any] = field(default_factory=dict)
    adapting: dict[str, Any] = field(default_factory=dict)
    flags: dict[str, Any] = field(default_factory=dict)
    packed: bool = False

    @property
    def batch(self) -> int:
        """Rows of a step."""
        return 1 if self.packed else BATCH

    def script(self) -> str:
        """TRL's side."""
        names = ("config", "trainer", "model", "loading", "adapting", "flags")
        return TRL.format(cutoff=CUTOFF, **{name: getattr(self, name) for name in names})


def said(rng: random.Random, number: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(number))


def pair(number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """A prompt with two answers of uneven lengths."""
    rng = random.Random(number)
    prompt, chosen, rejected = said(rng, PROMPT), said(rng, rng.randint(*ANSWERS)), said(rng, rng.randint(*ANSWERS))
    theirs = {
        "prompt": [{"role": "user", "content": prompt}],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
    }
    return {"instruction": prompt, "chosen": chosen, "rejected": rejected}, theirs


def feedback(number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """A prompt with one answer, every other one liked."""
    ours, theirs = pair(number)
    liked = bool(number % 2)
    side = "chosen" if liked else "rejected"
    tagged = {"prompt": theirs["prompt"], "completion": theirs[side], "label": liked}
    return {"instruction": ours["instruction"], "output": ours[side], "liked": liked}, tagged


def answered(number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """A prompt with an answer."""
    ours, theirs = pair(number)
    row = {"instruction": ours["instruction"], "output": ours["chosen"]}
    return row, {"prompt": theirs["prompt"], "completion": theirs["chosen"]}


LIKED = {"columns": {"prompt": "instruction", "response": "output", "kto_tag": "liked"}}
RANKED = {"ranking": True, "columns": {"prompt": "instruction", "chosen": "chosen", "rejected": "rejected"}}
STAGES = {
    "sft": Stage(answered, {}, {"padded": {"stage": "sft"}}, "SFTConfig", "SFTTrainer"),
    "sft-packed": Stage(
        answered,
        {},
        {"packed": {"stage": "sft", "packing": True}},
        "SFTConfig",
        "SFTTrainer",
        flags={"packing": True},
        packed=True,
    ),
    "dpo": Stage(
        pair,
        RANKED,
        {
            "plain": {"stage": "dpo", "share_prompts": False},
            "shared prompts": {"stage": "dpo", "share_prompts": True},
        },
        "DPOConfig",
        "DPOTrainer",
    ),
    "rm": Stage(
        pair,
        RANKED,
        {"plain": {"stage": "rm", "share_prompts": False}, "shared prompts": {"stage": "rm", "share_prompts": True}},
        "RewardConfig",
        "RewardTrainer",
        model="AutoModelForSequenceClassification",
        loading={"num_labels": 1},
        adapting={"task_type": "SEQ_CLS"},
    ),
    "kto": Stage(feedback, LIKED, {"plain": {"stage": "kto"}}, "KTOConfig", "KTOTrainer"),
}


def write_inputs(stage: Stage, steps: int, method: str) -> None:
    """Rows for both sides, a YAML for each way, and TRL's script, in the working directory."""
    both = [stage.rows(number) for number in range(steps * (PACKED if stage.packed else BATCH))]
    for name, rows in zip(("ours", "theirs"), zip(*both, strict=True), strict=True):
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    everywhere = {
        "model_name_or_path": MODEL, "finetuning_type": method, "dataset": [{"file_name": "ours.jsonl", **stage.entry}],
        "cutoff_len": CUTOFF, "overwrite_output_dir": True, "per_device_train_batch_size": stage.batch,
        "max_steps": -1 if stage.packed else steps, "num_train_epochs": 1,
        "learning_rate": 1e-4, "lr_scheduler_type": "constant", "disable_gradient_checkpointing": True,
        "logging_steps": 1, "save_strategy": "no", "use_cpu": True,
    }  # fmt: skip
    for way, keys in stage.ways.items():
        made = {**everywhere, **keys, "output_dir": way.replace(" ", "_")}
        Path(f"{made['output_dir']}.yaml").write_text(json.dumps(made))  # JSON is YAML
    Path("trl_side.py").write_text(stage.script())


def model_folder(way: str) -> str:
    from ftk.opening import plan_run
    from ftk.run import Run

    return Run(plan_run(f"{way}.yaml", [])).model_path


def ftk_log(way: str) -> tuple[list[float], int]:
    """(seconds at each step, all tokens)."""
    lines = [json.loads(line) for line in Path(way, "trainer_log.jsonl").read_text().splitlines()]
    lines = [line for line in lines if "loss" in line]
    return [line["seconds"] for line in lines], lines[-1]["num_tokens"]


def rate(moments: list[float], tokens: int) -> float:
    """Tokens per second: those of a mean step in the time of a median one."""
    times = [later - earlier for earlier, later in itertools.pairwise(moments[3:])]
    return tokens / len(moments) / statistics.median(times)


def rounds_of(stage: Stage, trl: str, rounds: int, steps: int, method: str) -> Iterator[dict[str, tuple[float, float]]]:
    """name → (tokens per second, MiB at most) of each round. Raises RuntimeError when tokens are not the same."""
    write_inputs(stage, steps, method)
    ways = {way: way.replace(" ", "_") for way in stage.ways}
    command = str(Path(sys.executable).with_name("ftk"))
    folder = model_folder(next(iter(ways.values())))
    theirs = [trl, "trl_side.py", folder, "theirs.jsonl", "trl.json", str(-1 if stage.packed else steps)]
    theirs += [str(stage.batch), method]
    for number in range(rounds):
        found: dict[str, tuple[float, float]] = {}
        names = [*ways, "trl"]
        for name in names if number % 2 else reversed(names):
            cost = measure(theirs if name == "trl" else [command, "run", f"{ways[name]}.yaml"])
            if name == "trl":
                made = json.loads(Path("trl.json").read_text())
                moments, tokens = made["times"], sum(made["tokens"])
            else:
                moments, tokens = ftk_log(ways[name])
            found[name] = (rate(moments, tokens), cost.peak_mib)
            found[f"tokens of {name}"] = (tokens, 0)
        counts = {found.pop(f"tokens of {name}")[0] for name in names}
        if len(counts) > 1:
            raise RuntimeError(f"the sides did not train the same tokens: {counts}")
        yield found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="*", default=list(STAGES), metavar="STAGE")
    parser.add_argument("--trl", default=sys.executable, help="a Python that has TRL")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--method", default="lora", choices=("lora", "full"))
    given = parser.parse_args()
    print(machine())
    for name in given.stages:
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            made = list(rounds_of(STAGES[name], given.trl, given.rounds, given.steps, given.method))
            os.chdir("/")
        for way in made[0]:
            speed, memory = (statistics.median(one[way][at] for one in made) for at in (0, 1))
            ratio, share = (statistics.median(one[way][at] / one["trl"][at] for one in made) for at in (0, 1))
            costs = f"{speed:,.0f} tokens/s ({ratio:.2f} x), {memory:,.0f} MiB ({share:.2f} x)"
            print(f"{name} {given.method}, {way}: {costs}")


if __name__ == "__main__":
    main()
