"""When training starts in a second run with an unchanged data set, against loading the model alone.

    python tests/benchmarks/second_run.py [--data DIR] [--rows NUM] [--rounds 7] [--model MODEL]

Two commands in turn, whole processes: one loads tokenizer and model as ``ftk run`` does, through the same run and the
trainer's own imports, and ends; the other is ``ftk run`` over 50,000 packed rows that an earlier run has left in the
cache, up to the moment at which the trainer asks for its first batch. The aim is 1.1 times the former.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from peers_rows import take
from rows_data import make
from timing import machine

CODE = """
import os, sys, time
begin = time.perf_counter()
import ftk.cli
if sys.argv[1] == "load":
    import ftk_training.fitting
    from ftk.config import Setting
    from ftk.plan import make_plan
    from ftk.registry import Registry
    from ftk.run import Run
    import yaml
    given = yaml.safe_load(open(sys.argv[2]))
    run = Run(make_plan({key: Setting(value, "here") for key, value in given.items()}, Registry.discover()))
    run.tokenizer, run.model(trainable=True)
else:
    from ftk_training.trainer import ExactTrainer
    ExactTrainer.get_batch_samples = lambda self, *arguments, **named: tell()
def tell():
    print("STARTED", time.perf_counter() - begin, sum(os.times()[:4]), flush=True)
    os._exit(0)
tell() if sys.argv[1] == "load" else ftk.cli.main(["run", sys.argv[2]])
"""


def measure(what: str, config: Path, env: dict[str, str]) -> tuple[float, float]:
    """Wall seconds from starting the process, and its CPU seconds."""
    begin = time.perf_counter()
    command = [sys.executable, "-c", CODE, what, str(config)]
    done = subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True)
    wall = time.perf_counter() - begin
    line = next((line for line in done.stdout.splitlines() if line.startswith("STARTED ")), None)
    if line is None:
        raise RuntimeError(f"{what} never started:\n{done.stderr[-3000:]}")
    return wall, float(line.split()[2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--model")
    given = parser.parse_args()
    print(f"{machine()}, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = given.data or folder / "made"
        make(source)
        take(source, folder, ["alpaca_50k"], given.rows)
        settings = {
            "model_name_or_path": given.model or str(source / "model"), "stage": "sft", "finetuning_type": "full",
            "template": "chatml", "dataset_dir": name, "dataset": "alpaca_50k", "cutoff_len": 1024, "packing": True,
            "output_dir": str(folder / "out"), "overwrite_output_dir": True, "max_steps": 1, "save_strategy": "no",
        }  # fmt: skip
        config = folder / "run.yaml"
        config.write_text(json.dumps(settings))
        env = {"FTK_CACHE": str(folder / "cache")}
        first = measure("run", config, env)
        pairs = [(measure("load", config, env), measure("run", config, env)) for _ in range(given.rounds)]
    for number, kind in enumerate(("wall", "CPU")):
        loads, runs = ([pair[which][number] for pair in pairs] for which in (0, 1))
        ratios = [run / load for load, run in zip(loads, runs, strict=True)]
        print(
            f"{kind}: first run {first[number]:.2f} s; model alone {statistics.median(loads):.2f} s, second run until "
            f"it trains {statistics.median(runs):.2f} s: {statistics.median(ratios):.3f} times (aim 1.1; "
            f"{', '.join(f'{ratio:.2f}' for ratio in ratios)})"
        )


if __name__ == "__main__":
    main()
