"""Rows of a data set, from the file to packed tokens, against a bare ``encode_batch_fast`` over the same text.

    python tests/benchmarks/rows.py [--model DIR --data FILE.jsonl] [--formatting NAME] [--rounds 5] [--packing]

Without a model and a file it makes 20,000 rows of its own and takes the tokenizer of ftk://tiny-chat. Both sides run in
one process, in turn, once with one tokenizer thread and once with two; imports and the model's files are not counted.
The second part packs a million lengths, and reads rows from the cache again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORDS = "the red bird sings a song about rain and small boats near an old green house".split()  # noqa: SIM905 (short)


def write_rows(path: Path, num: int = 20_000) -> None:
    rng = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(num):
            asked = " ".join(rng.choice(WORDS) for _ in range(rng.randint(5, 40)))
            told = " ".join(rng.choice(WORDS) for _ in range(rng.randint(20, 250)))
            file.write(json.dumps({"instruction": asked, "input": "", "output": told}) + "\n")


def make_run(given: argparse.Namespace, folder: Path):
    """A run over the data with an empty cache."""
    from ftk.config import Setting
    from ftk.plan import make_plan
    from ftk.registry import Registry
    from ftk.run import Run

    os.environ["FTK_CACHE"] = tempfile.mkdtemp(dir=folder)
    settings = {
        "stage": "sft", "finetuning_type": "full", "template": "chatml", "cutoff_len": 1024, "packing": given.packing,
        "model_name_or_path": given.model, "output_dir": str(folder / "out"),
        "dataset": [{"file_name": str(given.data), **({"formatting": given.formatting} if given.formatting else {})}],
    }  # fmt: skip
    return Run(make_plan({key: Setting(value, "here") for key, value in settings.items()}, Registry.discover()))


def seconds_of_rows(given: argparse.Namespace, folder: Path) -> tuple[float, int, int, list[str]]:
    """Wall seconds for the rows, their number, the number of tokens, and the text of each."""
    run = make_run(given, folder)
    tokenizer = run.tokenizer
    begin = time.perf_counter()
    rows = run.rows("train")
    seconds = time.perf_counter() - begin
    backend = tokenizer.backend_tokenizer
    texts = backend.decode_batch([row.ids_T for row in map(rows.store.row, rows.order)], skip_special_tokens=False)
    return seconds, len(rows), int(rows.lengths_N.sum()), texts


def seconds_of_encoding(tokenizer, texts: list[str]) -> tuple[float, int]:
    """Wall seconds of the bare tokenizer over rendered texts in calls of 1,000, and the number of tokens."""
    begin, tokens = time.perf_counter(), 0
    for first in range(0, len(texts), 1000):
        encoded = tokenizer.encode_batch_fast(texts[first : first + 1000], add_special_tokens=False)
        tokens += sum(len(one.ids) for one in encoded)
    return time.perf_counter() - begin, tokens


def compare(given: argparse.Namespace) -> None:
    """One thread count, in this process: ``RAYON_NUM_THREADS`` is read once."""
    from tokenizers import Tokenizer

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.data is None:
            given.data = folder / "rows.jsonl"
            write_rows(given.data)
        ours, bare, ratios = [], [], []
        _, _, _, texts = seconds_of_rows(given, folder)
        fresh = make_run(given, folder).tokenizer.backend_tokenizer.to_str()
        for _ in range(given.rounds):
            floor_s, floor_tokens = seconds_of_encoding(Tokenizer.from_str(fresh), texts)
            rows_s, num, tokens, _ = seconds_of_rows(given, folder)
            ours.append(rows_s)
            bare.append(floor_s)
            ratios.append(floor_s / rows_s)
        print(
            f"{given.threads} thread(s): {statistics.median(ours):.2f} s for {num} rows, {tokens} tokens "
            f"(bare: {floor_tokens}); bare encoding {statistics.median(bare):.2f} s; speed "
            f"{statistics.median(ratios):.3f} of it ({', '.join(f'{ratio:.2f}' for ratio in ratios)})"
        )
        if given.threads == 1:
            again(given, folder)


def again(given: argparse.Namespace, folder: Path) -> None:
    """The rows from the cache."""
    run = make_run(given, folder)
    cache = os.environ["FTK_CACHE"]
    run.rows("train")
    times = []
    for _ in range(given.rounds):
        run = make_run(given, folder)
        os.environ["FTK_CACHE"] = cache
        _ = run.tokenizer
        begin = time.perf_counter()
        run.rows("train")
        times.append(time.perf_counter() - begin)
    print(f"from the cache: {statistics.median(times):.3f} s")


def packing(rounds: int) -> None:
    import numpy as np
    from ftk_data.packing import pack

    lengths = np.clip(np.random.default_rng(0).lognormal(5.6, 1, 1_000_000), 1, 8192).astype(int)
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        made = pack(lengths, 8192)
        times.append(time.perf_counter() - begin)
    full = lengths.sum() / (len(made) * 8192)
    print(f"packing 1,000,000 lengths at 8,192: {statistics.median(times):.3f} s, {full:.4%} full")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ftk://tiny-chat")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--formatting")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--packing", action="store_true")
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.threads:
        compare(given)
        return
    from timing import machine

    print(machine())
    for threads in (1, 2):
        command = [sys.executable, *sys.argv, "--threads", str(threads)]
        subprocess.run(command, check=True, env={**os.environ, "RAYON_NUM_THREADS": str(threads)})
    packing(given.rounds)


if __name__ == "__main__":
    main()
