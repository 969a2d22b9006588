"""Rows of a data set, from the file to packed tokens, against a bare ``encode_batch_fast`` over the same text.

    python tests/benchmarks/rows.py [--data DIR] [--sets alpaca_50k sharegpt_50k] [--rounds 5] [--rows NUM]

The rows are those of rows_data.py, made in a temporary folder unless DIR has them. Each run is a process of its own
with an empty cache, the bare tokenizer and ftk in turn; imports and the model's files come before the clock starts.
"one" is one tokenizer thread; with two, ftk runs as one process whose tokenizer has two threads, and as two processes
(``preprocessing_num_workers: 2``), both against a bare tokenizer of two threads. Speed is the bare tokenizer's seconds
by ftk's within one round, the median over the rounds; on a busy machine the CPU seconds are the ones to read. ftk's are
for loading, converting, rendering, masking, tokenising, keeping them on disk, and packing at 1,024.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

from peers_rows import SETS, Result, Task, perform, take
from rows_data import TOKENS, make
from timing import machine

AIM = 0.85


def tasks(dataset: str) -> dict[str, tuple[Task, Task]]:
    """What is compared: the bare tokenizer and ftk."""
    bare = {threads: Task("bare", dataset, threads=threads) for threads in (1, 2)}
    return {
        "one": (bare[1], Task("ftk", dataset, packing=True)),
        "two threads": (bare[2], Task("ftk", dataset, threads=2, packing=True)),
        "two processes": (bare[2], Task("ftk", dataset, workers=2, packing=True)),
    }


def compare(dataset: str, model: Path, data: Path, rounds: int) -> None:
    compared = tasks(dataset)
    several = list(dict.fromkeys(task for pair in compared.values() for task in pair))
    results: dict[Task, list[Result]] = {task: [] for task in several}
    for _ in range(rounds):
        for task in several:
            results[task].append(perform(task, sys.executable, model, data, watched=False))
    for name, (bare, ours) in compared.items():
        walls, cpus = (
            [getattr(a, kind) / getattr(b, kind) for a, b in zip(results[bare], results[ours], strict=True)]
            for kind in ("wall_s", "cpu_s")
        )
        seconds = [statistics.median(one.wall_s for one in results[task]) for task in (bare, ours)]
        cpu = [statistics.median(one.cpu_s for one in results[task]) for task in (bare, ours)]
        print(
            f"| {dataset} | {name} | {seconds[0]:.2f} s, {cpu[0]:.2f} CPU s | {seconds[1]:.2f} s, {cpu[1]:.2f} CPU s | "
            f"{statistics.median(walls):.3f} ({min(walls):.2f}-{max(walls):.2f}) | "
            f"{statistics.median(cpus):.3f} ({min(cpus):.2f}-{max(cpus):.2f}) | {results[ours][0].rows} packs, "
            f"{results[ours][0].tokens} tokens (bare: {results[bare][0].tokens}) |",
            flush=True,
        )


def packing(rounds: int) -> None:
    import numpy as np
    from ftk_data.packing import pack

    lengths = np.clip(np.random.default_rng(0).lognormal(5.6, 1, 1_000_000), 1, 8192).astype(int)
    times, cpus = [], []
    for _ in range(rounds):
        begin, cpu = time.perf_counter(), time.process_time()
        made = pack(lengths, 8192)
        times.append(time.perf_counter() - begin)
        cpus.append(time.process_time() - cpu)
    full = lengths.sum() / (len(made) * 8192)
    print(
        f"packing 1,000,000 lengths at 8,192: {statistics.median(times):.3f} s ({min(times):.3f}-{max(times):.3f}), "
        f"{statistics.median(cpus):.3f} CPU s, {full:.4%} full (aims: 0.3 s, 99.9 %)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, help="take only the first rows of each data set")
    given = parser.parse_args()
    print(f"{machine()}, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = given.data or folder / "made"
        make(source)
        take(source, folder, given.sets, given.rows)
        print(
            f"| set | with | bare | ftk | speed by wall (aim {AIM}) | speed by CPU | |\n|---|---|---|---|---|---|---|"
        )
        for dataset in given.sets:
            compare(dataset, source / "model", folder, given.rounds)
        for dataset, tokens in islice(TOKENS.items(), 0 if given.rows else None):
            print(f"{dataset}: LLaMA-Factory, TRL and ms-swift make {tokens} tokens of it (before packing)")
    packing(given.rounds)


if __name__ == "__main__":
    main()
