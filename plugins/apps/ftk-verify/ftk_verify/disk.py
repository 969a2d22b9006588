"""Whether a run directory can be written, and whether the disk has room for what a run will leave there.

The estimate takes the model at its full size on torch's meta device, which holds shapes and no numbers.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from ftk import CheckpointError, rundir
from ftk.opening import plan_run
from ftk.plan import Plan
from ftk.run import Run

from ftk_verify import sizes
from ftk_verify.bench import muted

PROBE = "ftk-rehearsal"


def check_writable(folder: Path) -> None:
    """Make the folder and a file in it, and take both away again. Raises CheckpointError as the run itself would."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    rundir.make(folder)
    try:
        rundir.write_text(folder / PROBE, "")
    finally:
        (folder / PROBE).unlink(missing_ok=True)
        for one in missing:
            one.rmdir()


def at_full_size(config: str, words: Sequence[str]) -> tuple[Any, bool]:
    """The run's model as it learns, without numbers, and whether an adapter is what is saved of it."""
    run = Run(plan_run(config, words))
    with muted(), torch.device("meta"):
        model = run.model(trainable=True)
    return model, getattr(run.plan.one("adapter"), "saves", "model") == "adapter"


def needed(plan: Plan, model: Any, adapter: bool) -> tuple[int, int, int]:
    """Bytes of one checkpoint, of the result, and how many checkpoints are there at a time.

    Without ``save_total_limit`` their number is that of ``max_steps``, and one where nobody knows that.
    """
    known = plan.registry.options

    def value(key: str) -> Any:
        return plan.value(key) if key in known else None

    result = sizes.weights(model, learning_only=adapter)
    if value("save_strategy") in (None, "no"):
        return 0, result, 0
    one = result if value("save_only_model") else sizes.checkpoint(model, adapter=adapter)
    if limit := value("save_total_limit"):
        return one, result, limit + 1  # the new one is there before an old one goes
    steps, every = value("max_steps") or 0, value("save_steps") or 1
    if value("save_strategy") == "steps" and steps > 0:
        return one, result, max(1, int(steps // max(1, every * steps if every < 1 else every)))
    return one, result, 1


def check_room(plan: Plan, model: Any, adapter: bool) -> str:
    """What the run will write and what is free, for people. Raises CheckpointError when it does not fit."""
    folder = Path(plan.value("output_dir"))
    one, result, count = needed(plan, model, adapter)
    free = shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free
    total = one * count + result
    said = f"{sizes.shown(result)} for the result" + (f", {sizes.shown(one)} for each checkpoint" if one else "")
    if total > free:
        raise CheckpointError(
            f"{folder}: {said}, {count} of them at a time: {sizes.shown(total)}, but {sizes.shown(free)} are free. "
            "Set save_total_limit or save_only_model: true, or choose another output_dir"
        )
    return f"{said}; {sizes.shown(free)} free"
