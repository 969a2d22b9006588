"""Weights & Biases, offline unless the YAML says ``wandb_mode: online``.

Beside what is logged W&B collects the command line, the address of the git repository and the user's name; a token can
stand in the first two, so that is turned off. Its reports of its own errors, which go out even offline, are, too.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import ftk

if TYPE_CHECKING:
    from ftk.run import Run
    from ftk_training.tracking import Background, Told

BLOCK, HEADER = 32768, 7
"""Bytes."""
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4
"""Which part of a record a chunk of a block is."""
STEP = "train/global_step"
"""The axis of all charts, as transformers names it. W&B's own counter takes no step a second time."""


@ftk.options
class WandbOptions:
    """Where a run goes in W&B."""

    wandb_mode: Literal["offline", "online"] = ftk.option(
        "offline", help="online sends everything to W&B (wandb login first); offline keeps it for wandb sync."
    )
    wandb_project: str | None = ftk.option(None, help="Project; unset is WANDB_PROJECT of the environment, or project.")
    wandb_entity: str | None = ftk.option(None, help="User or team; unset is the one you are logged in as.")
    wandb_dir: str | None = ftk.option(None, help="Folder that gets the folder wandb; unset is the run directory.")


class Wandb:
    """One W&B run; what goes on with it later has the same id."""

    def __init__(self, told: Told, options: WandbOptions) -> None:
        os.environ["WANDB_ERROR_REPORTING"] = "false"  # read when wandb is imported
        import wandb

        self.lines = 0
        folder = options.wandb_dir or str(told.folder)
        self.before = list(Path(folder).glob(f"wandb/offline-run-*/run-{told.id}.wandb"))
        self.run = wandb.init(
            mode=options.wandb_mode,
            project=options.wandb_project or os.environ.get("WANDB_PROJECT") or told.project,
            entity=options.wandb_entity,
            dir=folder,
            id=told.id,
            name=told.name,
            resume="allow",
            config=told.everything,
            settings=wandb.Settings(
                silent=True, console="off", disable_git=True, disable_code=True, save_code=False, x_disable_meta=True
            ),
        )
        self.run.define_metric(STEP)
        self.run.define_metric("*", step_metric=STEP)

    def written(self) -> dict[str, int] | None:
        """What offline files hold. They are written in blocks, so a killed process has lost the last of it.

        Online W&B says how far it has got, and all that was given to it counts as written.
        """
        if not self.before:
            self.lines = self.run.step
            return None
        found: dict[str, int] = {}
        for path in self.before:
            for line in history(path):
                self.lines = max(self.lines, int(line["_step"]) + 1)
                found |= {name: max(int(line[STEP]), found.get(name, -1)) for name in line if "/" in name}
        return found

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.run.log({**metrics, STEP: step}, step=self.lines, commit=True)
        self.lines += 1

    def close(self, status: str, error: str) -> None:
        self.run.summary["status"] = status
        if error:
            self.run.summary["error"] = error
        self.run.finish(exit_code=0 if status == "finished" else 1)


def history(path: Path) -> Iterator[dict[str, Any]]:
    """The logged lines of an offline file: LevelDB's log format (leveldb, doc/log_format.md) around W&B's records."""
    from wandb.proto.wandb_internal_pb2 import Record

    data = path.read_bytes()
    place, whole = HEADER, b""  # behind a header of W&B's own
    while place + HEADER <= len(data):
        if BLOCK - place % BLOCK < HEADER:
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + HEADER])
        part = data[place + HEADER : place + HEADER + length]
        if len(part) < length or kind not in (FULL, FIRST, MIDDLE, LAST):
            return  # where the killed process had got to
        place += HEADER + length
        whole = part if kind in (FULL, FIRST) else whole + part
        if kind in (FULL, LAST):
            items = Record.FromString(whole).history.item
            line = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}
            if STEP in line:
                yield line


def start(run: Run) -> Background:
    from ftk_training.tracking import track

    return track(run, "wandb", lambda told: Wandb(told, run.options(WandbOptions)))


@ftk.hookimpl
def ftk_trackers() -> Iterator[ftk.Tracker]:
    yield ftk.Tracker(
        "wandb",
        target="ftk_wandb:start",
        requires=("wandb",),
        extra="backend",
        options=WandbOptions,
        reads=("run_name", "project"),
        summary="Weights & Biases, offline unless wandb_mode says online",
    )
