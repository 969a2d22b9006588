"""From the command to the first optimizer step: 1,000 rows, LoRA, batch 1, first with an empty cache, then again.

    python tests/benchmarks/first_step.py [ROUNDS]

Wall seconds from starting the process to the moment at which ``trainer_log.jsonl`` holds a loss, looked at every 5 ms.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from timing import machine

CONFIG = """
model_name_or_path: ftk://random/llama
stage: sft
template: chatml
dataset: rows.jsonl
cutoff_len: 512
output_dir: out
overwrite_output_dir: true
per_device_train_batch_size: 1
max_steps: 1
logging_steps: 1
save_strategy: "no"
"""


def write_rows(path: Path) -> None:
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
        for _ in range(1000):
            asked = " ".join(rng.choice(words) for _ in range(20))
            told = " ".join(rng.choice(words) for _ in range(150))
            file.write(json.dumps({"instruction": asked, "output": told}) + "\n")


def seconds_to_first_step(cache: Path) -> float:
    """Wall time from here to the moment at which the log holds the loss of step 1."""
    log = Path("out/trainer_log.jsonl")
    log.unlink(missing_ok=True)
    begin = time.perf_counter()
    command = [str(Path(sys.executable).with_name("ftk")), "run", "run.yaml"]
    environment = {**os.environ, "FTK_CACHE": str(cache)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while process.poll() is None:
        if log.exists() and '"loss"' in log.read_text():
            seconds = time.perf_counter() - begin
            process.communicate()
            return seconds
        time.sleep(0.005)
    raise RuntimeError(f"no first step: {process.communicate()[1].decode()[-2000:]}")


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    print(machine())
    first, again = [], []
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        write_rows(Path("rows.jsonl"))
        Path("run.yaml").write_text(CONFIG)
        warm = Path(name) / "warm"
        seconds_to_first_step(warm)
        for number in range(rounds):
            first.append(seconds_to_first_step(Path(name) / f"cold-{number}"))
            again.append(seconds_to_first_step(warm))
    first_s, again_s = statistics.median(first), statistics.median(again)
    print(f"first time {first_s:.2f} s, second time {again_s:.2f} s (medians of {rounds})")


if __name__ == "__main__":
    main()
