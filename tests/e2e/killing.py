"""Kills runs at random instants and starts them again, for every stage: nothing may change but the time it takes.

    python tests/e2e/killing.py [--kills 20] [--seed 0] [sft dpo ...]

A run that has been killed and started again until it ended has the losses and the weights of one that was left alone,
to the last bit, and what lies under the name of a checkpoint is whole at every instant. One process imports torch and
forks a child for each start; a child does what ``ftk run`` does and gets SIGKILL. The stages, their rows and their
keys are those of ``tests/contract/test_stages.py``. Exit code 1 when something differed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "contract"))

from ftk import rundir
from ftk.run import execute
from ftk.testing.runs import plan_in
from test_stages import REGISTRY, TINY, cases, log_of, settings, weights_of

QUICK = {"max_steps": 8, "save_strategy": "steps", "save_steps": 1, "save_total_limit": 2, "disable_shuffling": False}
"""Much of such a run is spent writing checkpoints, so many kills meet one that is half written."""


def prepare(stage: str) -> None:
    """Import what the children need, which takes longer than a whole run. After a step torch could not be forked."""
    import ftk_hf.loading  # noqa: F401
    import ftk_training.plot  # noqa: F401
    import transformers.models.llama.modeling_llama  # noqa: F401

    spec = REGISTRY.specs("trainer")[stage]
    spec.load()
    if spec.rows:
        spec.load("rows")


def begin(folder: Path, given: dict[str, Any]) -> int:
    """A child that executes the run; its process id."""
    child = os.fork()
    if child:
        return child
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try:
        execute(plan_in(folder, **given))
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def ended(child: int) -> int:
    """The exit code, minus the signal's number for one that was killed."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def losses_of(folder: Path) -> list[dict[str, Any]]:
    """The log without times."""
    timed = ("seconds", "tokens_per_second")
    return [
        {name: value for name, value in line.items() if name not in timed and not name.startswith("time/")}
        for line in log_of(folder)
    ]


def differs(folder: Path, whole: Path) -> str:
    """In what a run differs from the one that was left alone; empty when in nothing."""
    if losses_of(folder) != losses_of(whole):
        return f"other losses: {losses_of(folder)} instead of {losses_of(whole)}"
    ours, theirs = weights_of(folder), weights_of(whole)
    return ", ".join(name for name, weight in theirs.items() if not torch.equal(ours[name], weight))


def kill(stage: str, kills: int, seed: int) -> str:
    """What is wrong after so many kills of a stage's runs; empty when nothing is. Prints what happened."""
    case = next(one.values[0] for one in cases() if one.values[0].name == stage)
    prepare(case.stage)
    chance = random.Random(f"{seed} {stage}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        given = settings(folder, case, **{**QUICK, "model_name_or_path": f"{TINY}&attention_dropout=0.1"})
        began = time.monotonic()
        if ended(begin(folder, {**given, "output_dir": str(folder / "whole")})):
            return "the run that was left alone failed"
        seconds, killed, finished, resumed = time.monotonic() - began, 0, 0, 0
        while killed < kills or not finished:
            out = folder / f"out-{finished}"
            child = begin(folder, {**given, "output_dir": str(out)})
            if killed < kills:
                time.sleep(chance.uniform(0.01, seconds))
                os.kill(child, signal.SIGKILL)
            code = ended(child)
            checkpoints = [path for path in out.glob("checkpoint-*") if path.name.partition("-")[2].isdigit()]
            if damaged := [f"{path.name}: {rundir.damage(path)}" for path in checkpoints if rundir.damage(path)]:
                return f"a checkpoint is damaged after {killed + 1} kills: {'; '.join(damaged)}"
            if code == -signal.SIGKILL:
                killed += 1
                resumed += bool(checkpoints)
                continue
            if code:
                return f"a start after {killed} kills failed"
            finished += 1
            if said := differs(out, folder / "whole"):
                return f"after {killed} kills: {said}"
    print(
        f"{stage}: {killed} kills, {resumed} of them with a checkpoint, {finished} runs ended, none differs", flush=True
    )
    return ""


def main() -> int:
    known = [one.values[0].name for one in cases() if one.values[0].name == one.values[0].stage]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="*", default=known, help=f"of {', '.join(known)}; all when none is named")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    wrong = {}
    for stage in chosen.stages:
        if said := kill(stage, chosen.kills, chosen.seed):
            wrong[stage] = said
            print(f"{stage}: {said}", flush=True)
    print(json.dumps({"stages": chosen.stages, "kills": chosen.kills, "wrong": wrong}))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
