"""What a training step of ``ftk run`` costs beside the model: against a bare loop, step by step in one process.

    python tests/benchmarks/overhead.py [--method full] [--steps 120] [--batch 4] [--tokens 256] [--profile]

After each step of the run, a bare loop takes the same step: the very batch through a copy of the model (forward,
backward, clip, AdamW, schedule, zero_grad), timed by itself. So both see the same machine, and what it does beside hits
both. Everything that ftk does from one step to the next counts: reading rows, the batch, callbacks, a line of the log.
A random Llama of 10 M parameters in fp32, defaults of a run apart from ``SETTINGS``; the first ten steps are left out.
``--profile`` tells where ftk's Python goes instead.
"""

from __future__ import annotations

import argparse
import copy
import cProfile
import json
import os
import pstats
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from timing import machine

MODEL = (
    "ftk://random/llama?hidden_size=256&intermediate_size=768&num_hidden_layers=9&num_attention_heads=4"
    "&num_key_value_heads=4"
)
WARM = 10
"""Steps that are left out."""
SETTINGS = {
    "model_name_or_path": MODEL, "stage": "sft", "template": "chatml", "dataset": "rows.jsonl", "output_dir": "out",
    "overwrite_output_dir": True, "use_cpu": True,
}  # fmt: skip
WORDS = ("the", "red", "bird", "sings", "a", "song", "about", "rain", "and", "seven", "small", "boats", "near", "old")


Clock = tuple[float, float]
"""Seconds by the clock on the wall, and of the CPU by this process."""


def now() -> Clock:
    return time.perf_counter(), time.process_time()


def since(then: Clock) -> Clock:
    wall, cpu = now()
    return wall - then[0], cpu - then[1]


class Bare:
    """The loop that a user would write by hand. kept: what each step took, see :func:`now`."""

    def __init__(self, model: Any, steps: int, rate: float) -> None:
        import torch

        self.torch, self.model = torch, model.train()
        self.learning = [one for one in model.parameters() if one.requires_grad]
        self.optimizer = torch.optim.AdamW(self.learning, lr=rate, weight_decay=0.0, fused=True)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: 1 - step / steps)
        self.kept: list[Clock] = []
        self.loss = 0.0

    def step(self, batch: dict[str, Any]) -> None:
        begin = now()
        loss = self.model(**batch, use_cache=False).loss
        loss.backward()
        self.torch.nn.utils.clip_grad_norm_(self.learning, 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        self.loss = loss.item()
        self.kept.append(since(begin))


def write_rows(path: Path, number: int, tokens: int) -> None:
    """Rows that are longer than the cutoff, so that every batch is full."""
    rng = random.Random(0)
    with path.open("w") as file:
        for _ in range(number):
            text = " ".join(rng.choice(WORDS) for _ in range(3 * tokens))
            file.write(json.dumps({"instruction": "Tell me more.", "output": text}) + "\n")


def timed(trainer: type, own: list[Clock], bare: list[Bare], profile: cProfile.Profile | None) -> type:
    """A trainer class whose steps are timed into ``own``, with a step of the bare loop after each, or profiled."""

    class Timed(trainer):  # type: ignore[misc, valid-type]
        began: Clock | None = None
        batch: dict[str, Any] | None = None

        def get_batch_samples(self, *arguments: Any, **named: Any) -> Any:
            if self.began is not None:
                own.append(since(self.began))
            if profile is not None and len(own) == WARM:
                profile.enable()
            elif profile is None and self.batch is None:
                bare.append(Bare(copy.deepcopy(self.model), self.state.max_steps, self.args.learning_rate))
            elif profile is None:
                bare[0].step(self.batch)
            self.began = now()
            samples, items = super().get_batch_samples(*arguments, **named)
            self.batch = dict(samples[0])
            return samples, items

        def _finalize_training(self, *arguments: Any, **named: Any) -> Any:
            if profile is not None:
                profile.disable()
            return super()._finalize_training(*arguments, **named)

    return Timed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="full", choices=("full", "lora"))
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--profile", action="store_true")
    given = parser.parse_args()
    print(machine())
    from ftk.opening import plan_run
    from ftk.run import execute
    from ftk_training import fitting

    own: list[Clock] = []
    bare: list[Bare] = []
    profile = cProfile.Profile() if given.profile else None
    fitting.ExactTrainer = timed(fitting.ExactTrainer, own, bare, profile)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        write_rows(Path("rows.jsonl"), given.steps * given.batch, given.tokens)
        settings = {
            **SETTINGS, "finetuning_type": given.method, "max_steps": given.steps, "cutoff_len": given.tokens,
            "per_device_train_batch_size": given.batch,
        }  # fmt: skip
        Path("run.yaml").write_text(json.dumps(settings))  # JSON is YAML
        plan = plan_run("run.yaml", [])
        execute(plan)
        os.chdir("/")
    if profile is not None:
        pstats.Stats(profile).sort_stats("cumulative").print_stats(100)
        return
    print(f"{given.method}, {given.batch} x {given.tokens}")
    for at, clock in enumerate(("wall", "CPU")):
        pairs = [(one[at], other[at]) for one, other in zip(own, bare[0].kept, strict=False)][WARM:]
        ours, theirs = (1000 * statistics.median(side) for side in zip(*pairs, strict=True))
        ratio = statistics.median(one / other for one, other in pairs)
        more = 1000 * statistics.median(one - other for one, other in pairs)
        print(f"  by {clock}: bare {theirs:.1f} ms, ftk {ours:.1f} ms; of each step {ratio:.3f} x, {more:+.2f} ms")


if __name__ == "__main__":
    main()
