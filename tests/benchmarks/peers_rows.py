"""Rows of a data set, from the file to tokens with labels, beside LLaMA-Factory's pipeline and TRL's.

    python tests/benchmarks/peers_rows.py [--llamafactory PYTHON] [--trl PYTHON] [--data DIR]
        [--sets alpaca_50k sharegpt_50k] [--workers 1 2] [--modes single packed] [--rounds 3] [--rows NUM]

PYTHON is the interpreter of an environment that has that peer. DIR is a folder of rows_data.py, made in a temporary one
when it is not named. Each pipeline runs in a process of its own, all in turn, with empty
caches. Imports, the tokenizer and TRL's model are loaded before the clock starts. Memory is that of the process and
its children from their start until the rows are ready.

"2 workers" are two processes that tokenise; "2 threads" is one whose tokenizer has two threads, which is what ftk does
when nobody asks for workers. Ratios are the peer's seconds by ftk's within one round: above 1, ftk is quicker.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from process_memory import Peak, Watch
from rows_data import make
from timing import machine

PIPELINES = Path(__file__).parent / "pipelines"
sys.path.insert(0, str(PIPELINES))
from outcome import SETS  # noqa: E402


@dataclass(frozen=True)
class Task:
    """One pipeline on one data set. threads: of its tokenizer."""

    pipeline: str
    dataset: str
    workers: int = 1
    threads: int = 1
    packing: bool = False
    cutoff: int = 1024

    @property
    def name(self) -> str:
        many = f"{self.threads} threads" if self.threads > self.workers else f"{self.workers} workers"
        return f"{self.pipeline}, {many if '1' not in many else 'one'}"


@dataclass(frozen=True)
class Result:
    """What a pipeline told. cpu_s: with its child processes; rows, tokens, trained: without padding."""

    wall_s: float
    cpu_s: float
    rows: int
    tokens: int
    trained: int
    peak: Peak


def perform(
    task: Task, python: str, model: Path, data: Path, save: Path | None = None, *, watched: bool = True
) -> Result:
    """Run a pipeline with empty caches. Raises RuntimeError with its output when it fails.

    watched: look at its memory, which takes a little of its time.
    """
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryFile("w+") as complaints:
        scratch = Path(name)
        command = [
            python, str(PIPELINES / f"{task.pipeline}_rows.py"), "--model", str(model), "--data", str(data),
            "--dataset", task.dataset, "--workers", str(task.workers), "--cutoff", str(task.cutoff), "--out", name,
            *(["--packing"] if task.packing else []), *(["--save", str(save)] if save else []),
        ]  # fmt: skip
        env = {
            **os.environ, "FTK_CACHE": str(scratch / "rows"), "HF_DATASETS_CACHE": str(scratch / "datasets"),
            "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": str(task.threads),
        }  # fmt: skip
        env.pop("PYTHONPATH", None)
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=complaints, env=env, text=True)
        watch = Watch(process.pid, 0.1 if watched else 1e9)
        said: dict[str, float] = {}
        assert process.stdout
        for line in process.stdout:
            if line.startswith("PREPARED "):
                watch.stop()
            if line.startswith(("PREPARED ", "COUNTED ")):
                said |= json.loads(line.partition(" ")[2])
        watch.stop()
        if process.wait() or "tokens" not in said:
            complaints.seek(0)
            raise RuntimeError(f"{' '.join(command)} exited with {process.returncode}:\n{complaints.read()[-3000:]}")
    counts = {key: int(said[key]) for key in ("rows", "tokens", "trained")}
    return Result(said["wall_s"], said["cpu_s"], **counts, peak=watch.peak)


def take(data: Path, folder: Path, sets: list[str], num: int | None) -> None:
    """A folder with the first ``num`` rows of some data sets (None: all) and their dataset_info.json."""
    for name in sets:
        for file in (f"{name}.jsonl", f"{name}_messages.jsonl"):
            if (data / file).exists():
                with (data / file).open("rb") as rows, (folder / file).open("wb") as taken:
                    taken.writelines(islice(rows, num))
        texts = json.loads((data / f"{name}_rendered.json").read_text())
        (folder / f"{name}_rendered.json").write_text(json.dumps(texts[:num], ensure_ascii=False))
    (folder / "dataset_info.json").write_text(json.dumps(SETS))


def tasks(pythons: Mapping[str, str], dataset: str, packing: bool, workers: list[int]) -> Iterator[Task]:
    for num in workers:
        for pipeline in pythons:
            yield Task(pipeline, dataset, num, packing=packing)
            if pipeline == "ftk" and num > 1:
                yield Task(pipeline, dataset, threads=num, packing=packing)


def compare(all_tasks: list[Task], results: Mapping[Task, list[Result]]) -> None:
    """A line for each pipeline: medians and counts; below, ratios by ftk with as many workers."""
    for task in all_tasks:
        mine = results[task]
        alike = [one for one in all_tasks if one.pipeline == "ftk" and max(one.threads, one.workers) == task.workers]
        wall, cpu = (statistics.median(getattr(one, field) for one in mine) for field in ("wall_s", "cpu_s"))
        peak = {
            field: statistics.median(getattr(one.peak, field) for one in mine)
            for field in ("anonymous_mib", "file_mib", "total_mib")
        }
        print(
            f"  {task.name}: {wall:.2f} s, {cpu:.2f} CPU s, {mine[0].tokens / wall / 1000:.0f} k tokens/s; peak "
            f"{peak['anonymous_mib']:.0f} MiB anonymous, {peak['file_mib']:.0f} MiB of files, "
            f"{peak['total_mib']:.0f} MiB together; {mine[0].rows} rows, {mine[0].tokens} tokens, "
            f"{mine[0].trained} trained"
        )
        for ours in alike if task.pipeline != "ftk" else ():
            for field in ("wall_s", "cpu_s"):
                ratios = [getattr(b, field) / getattr(a, field) for a, b in zip(results[ours], mine, strict=True)]
                each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
                print(f"    {field} by that of {ours.name}: {statistics.median(ratios):.2f} ({each})")


def check(results: Mapping[Task, list[Result]]) -> None:
    """Say where token counts disagree; a row over the cutoff keeps whole turns in ftk and is cut by the peers."""
    first = next(iter(results.values()))[0]
    for task, several in results.items():
        if len({(one.tokens, one.trained) for one in several}) > 1:
            print(f"  NOT THE SAME IN EACH ROUND: {task.name}")
        if several[0].tokens != first.tokens:
            more = several[0].tokens - first.tokens
            print(f"  {task.name}: {more:+d} tokens ({more / first.tokens:+.4%}) beside {next(iter(results)).name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="another model than that of the data's folder")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--llamafactory", metavar="PYTHON")
    parser.add_argument("--trl", metavar="PYTHON")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--modes", nargs="+", choices=("single", "packed"), default=["single", "packed"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, help="take only the first rows of each data set")
    given = parser.parse_args()
    pythons = {"ftk": sys.executable, "llamafactory": given.llamafactory, "trl": given.trl}
    pythons = {name: python for name, python in pythons.items() if python}
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        data = Path(name)
        given.data = given.data or data / "made"
        make(given.data)
        given.model = given.model or given.data / "model"
        take(given.data, data, given.sets, given.rows)
        for dataset in given.sets:
            for mode in given.modes:
                chosen = list(tasks(pythons, dataset, mode == "packed", given.workers))
                results: dict[Task, list[Result]] = {task: [] for task in chosen}
                for _ in range(given.rounds):
                    for task in chosen:
                        results[task].append(perform(task, pythons[task.pipeline], given.model.resolve(), data))
                print(f"{dataset}, {mode}, {given.rounds} rounds, load {os.getloadavg()[0]:.1f}", flush=True)
                compare(chosen, results)
                check(results)


if __name__ == "__main__":
    main()
