"""Peak memory of a data set's rows, by the size of its file: loading, tokenising, packing, then reading every row once.

    python tests/benchmarks/memory_rows.py [MB ...] [--model MODEL] [--packing] [--workers 2] [--repeat] [--streaming]

Makes a JSONL of each size (default: 100 and 200 MB) from made-up words and runs ftk's rows over it in a process of its
own with an empty cache, with ``--repeat`` once more from that cache; with ``--streaming`` rows are made while they are
read. Memory is that of the process and its children (process_memory.py): anonymous memory is what ftk needs; pages of
files are the libraries and the mapped shards of the cache, which the system takes back when it needs the room. "before"
is with the tokenizer loaded and no row read; ``ru_maxrss`` is the system's own figure for the largest single process,
both kinds of pages together.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path

from process_memory import Watch

WORDS = "the red bird sings a song about rain and small boats near an old green house".split()  # noqa: SIM905 (short)
STAGES = ("before", "rows made", "all rows read")


def write_file(path: Path, megabytes: float) -> int:
    """Rows of one question and one answer, 1 MB being 10^6 bytes. Returns their number."""
    rng = random.Random(0)
    size = num = 0
    with path.open("w", encoding="ascii") as file:
        while size < megabytes * 1e6:
            asked, told = (" ".join(rng.choices(WORDS, k=rng.randint(*most))) for most in ((5, 40), (20, 250)))
            size += file.write(json.dumps({"instruction": asked, "input": "", "output": told}) + "\n")
            num += 1
    return num


def work(given: argparse.Namespace) -> None:
    """The watched process. It says after each stage what it has done and waits to be told to go on."""
    from ftk.config import Setting
    from ftk.plan import make_plan
    from ftk.registry import Registry
    from ftk.run import Run

    settings = {
        "stage": "sft", "finetuning_type": "full", "template": "chatml", "cutoff_len": 1024, "packing": given.packing,
        "model_name_or_path": given.model, "output_dir": str(given.folder / "out"),
        "dataset": [{"file_name": str(given.folder / "rows.jsonl")}], "preprocessing_num_workers": given.workers,
    }  # fmt: skip
    if given.streaming:
        settings |= {"streaming": True, "max_steps": 1_000_000}
    run = Run(make_plan({key: Setting(value, "here") for key, value in settings.items()}, Registry.discover()))
    _ = run.tokenizer
    _done({})
    rows = run.rows("train")
    _done({} if given.streaming else {"tokens": int(rows.lengths_N.sum()), "rows": len(rows)})
    if given.streaming:
        tokens = sum(len(row["input_ids"]) for row in islice(rows, given.num))
    else:
        tokens = sum(len(rows[index]["input_ids"]) for index in range(len(rows)))
    largest = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    _done({"read": tokens, "ru_maxrss_mib": largest // 1024})


def _done(facts: dict[str, int]) -> None:
    print("DONE " + json.dumps(facts), flush=True)
    sys.stdin.readline()


def measure(given: argparse.Namespace, folder: Path, num: int) -> None:
    command = [
        sys.executable, __file__, "--model", given.model, "--workers", str(given.workers), "--folder", str(folder),
        "--num", str(num), *(["--streaming"] if given.streaming else []),
    ]  # fmt: skip
    env = {**os.environ, "FTK_CACHE": str(folder / "cache")}
    process = subprocess.Popen(
        [*command, *(["--packing"] if given.packing else [])], env=env, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin
    assert process.stdout
    for stage in STAGES:
        watch = Watch(process.pid, 0.02)
        line = next((line for line in process.stdout if line.startswith("DONE ")), None)
        if line is None:
            raise RuntimeError(f"the process ended with {process.wait()} before: {stage}")
        watch.look()
        peak = watch.stop()
        facts = ", ".join(f"{number} {name}" for name, number in json.loads(line[5:]).items())
        print(
            f"  {stage}: peak {peak.anonymous_mib:.0f} MiB anonymous, {peak.file_mib:.0f} MiB of files, "
            f"{peak.total_mib:.0f} MiB together {f'({facts})' if facts else ''}",
            flush=True,
        )
        print(file=process.stdin, flush=True)
    process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", nargs="*", type=float, default=[100, 200], metavar="MB")
    parser.add_argument("--model", default="ftk://tiny-chat")
    parser.add_argument("--packing", action="store_true")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--repeat", action="store_true")
    parser.add_argument("--streaming", action="store_true")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--num", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.folder:
        work(given)
        return
    for size in given.sizes:
        with tempfile.TemporaryDirectory() as name:
            num = write_file(Path(name) / "rows.jsonl", size)
            print(f"{size:g} MB of JSONL, {num} rows, {given.workers} worker(s){', packed' if given.packing else ''}")
            measure(given, Path(name), num)
            if given.repeat:
                print(" again, from the cache")
                shutil.rmtree(Path(name) / "out", ignore_errors=True)
                measure(given, Path(name), num)


if __name__ == "__main__":
    main()
