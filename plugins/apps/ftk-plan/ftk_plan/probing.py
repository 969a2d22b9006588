"""Two steps of the run itself, in a process of their own, and the most memory that it took."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ftk import FtkError
from ftk.plan import Plan

from ftk_plan.changing import ALONE

SHORT: dict[str, Any] = {
    **ALONE, "max_steps": 2, "do_eval": False, "eval_strategy": "no", "do_predict": False, "save_strategy": "no",
    "load_best_model_at_end": False, "plot_loss": False, "disable_tqdm": True, "logging_steps": 1,
    "eval_on_start": False, "train_sampling_strategy": "group_by_length",
}  # fmt: skip
"""Rows in the order of their length, the longest first, so that the peak is the run's."""
RUN = """
import json, resource, sys
from ftk.opening import plan_run
from ftk.run import execute
execute(plan_run(sys.argv[1], json.loads(sys.argv[2])))
import torch
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
gpu = torch.cuda.max_memory_reserved() if torch.cuda.is_available() else 0
print(json.dumps({"peak": gpu or peak, "of": "the GPU" if gpu else "the process"}))
"""


def probe(plan: Plan, words: Sequence[str]) -> tuple[int, str]:
    """(bytes, of what). Raises FtkError with the last line of a run that fails."""
    known = plan.registry.options
    with tempfile.TemporaryDirectory(prefix="ftk-plan-") as folder:
        settings = {**SHORT, "output_dir": str(Path(folder) / "out")}
        more = [f"--{key}={json.dumps(one)}" for key, one in settings.items() if key in known]
        done = subprocess.run(
            [sys.executable, "-c", RUN, plan.config, json.dumps([*words, *more])], capture_output=True, text=True
        )
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise FtkError(f"{plan.config}: --probe: {said[-1]}")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return int(found["peak"]), str(found["of"])
