"""Trackio: an SQLite file in the run directory, unless ``trackio_space_id`` names a Hugging Face space.

The folder is read by Trackio when it is imported, so a process has one; the environment's TRACKIO_SPACE_ID and
TRACKIO_SERVER_URL, with which metrics would go out, have no effect.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ftk

if TYPE_CHECKING:
    from ftk.run import Run
    from ftk_training.tracking import Background, Told

ELSEWHERE = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "TRACKIO_WEBHOOK_URL", "TRACKIO_BUCKET_ID")


@ftk.options
class TrackioOptions:
    """Where Trackio keeps its files."""

    trackio_dir: str | None = ftk.option(
        None, help="Folder of its databases, for TRACKIO_DIR=... trackio show; unset is trackio in the run directory."
    )


class Trackio:
    """One Trackio run. They are told apart by name, so the name ends with the id."""

    def __init__(self, told: Told, run: Run) -> None:
        folder = Path(run.options(TrackioOptions).trackio_dir or told.folder / "trackio").resolve()
        trackio = _imported(folder)
        for name in ELSEWHERE:
            os.environ.pop(name, None)
        self.away = run.value("trackio_space_id") is not None
        self.run = trackio.init(
            project=told.project,
            name=f"{told.name}-{told.id}",
            config=told.everything,
            resume="allow" if told.resumed else "never",
            space_id=run.value("trackio_space_id"),
            bucket_id=run.value("trackio_bucket_id"),
            private=run.value("hub_private_repo"),
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def written(self) -> dict[str, int] | None:
        """It writes twice a second, so a killed process has lost something. A space is asked for nothing."""
        if self.away:
            return None
        from trackio.sqlite_storage import SQLiteStorage

        found: dict[str, int] = {}
        for line in SQLiteStorage.get_logs(self.run.project, self.run.name):
            found |= {name: max(int(line["step"]), found.get(name, -1)) for name in line if "/" in name}
        return found

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.run.log(dict(metrics), step=step)

    def close(self, status: str, error: str) -> None:
        self.run.log({"status": f"{status}: {error}" if error else status})
        self.run.finish()


def _imported(folder: Path) -> Any:
    """The module, with ``folder`` as its own, and silent."""
    os.environ["TRACKIO_DIR"] = str(folder)
    import trackio
    import trackio.run
    import trackio.utils

    if Path(trackio.utils.TRACKIO_DIR).resolve() != folder:
        raise ftk.ConfigError(f"trackio_dir: {folder}: this process writes to {trackio.utils.TRACKIO_DIR} already")
    for module in (trackio, trackio.run, trackio.utils):
        vars(module)["print"] = _say_nothing  # it prints a page per run, and standard output is the whole process's
    return trackio


def _say_nothing(*_: Any, **__: Any) -> None:
    pass


def start(run: Run) -> Background:
    from ftk_training.tracking import track

    return track(run, "trackio", lambda told: Trackio(told, run))


@ftk.hookimpl
def ftk_trackers() -> Iterator[ftk.Tracker]:
    yield ftk.Tracker(
        "trackio",
        target="ftk_trackio:start",
        requires=("trackio",),
        extra="backend",
        options=TrackioOptions,
        reads=("run_name", "project", "trackio_space_id", "trackio_bucket_id", "hub_private_repo"),
        summary="Trackio, in a file of the run directory unless trackio_space_id is set",
    )
