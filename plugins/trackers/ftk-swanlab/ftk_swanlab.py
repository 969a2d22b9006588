"""SwanLab, offline unless the YAML says ``swanlab_mode: cloud``; the keys are LLaMA-Factory's.

Beside what is logged SwanLab collects the command line and the address of the git repository; a token can stand in
either, so both are turned off.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import ftk

if TYPE_CHECKING:
    from ftk.run import Run
    from ftk_training.tracking import Background, Told

log = logging.getLogger("ftk.swanlab")

MODES = {"cloud": "online", "online": "online", "local": "local", "offline": "offline"}
STATES = {"finished": "success", "failed": "crashed", "interrupted": "aborted"}


@ftk.options
class SwanlabOptions:
    """Where a run goes in SwanLab."""

    use_swanlab: bool = ftk.option(False, help="Log to SwanLab: the same as report_to: swanlab.")
    swanlab_project: str | None = ftk.option("llamafactory", help="Project.")
    swanlab_workspace: str | None = ftk.option(None, help="Workspace; unset is the one you are logged in as.")
    swanlab_run_name: str | None = ftk.option(None, help="Name of the experiment; unset is run_name.")
    swanlab_mode: Literal["cloud", "local", "offline"] = ftk.option(
        "offline", help="cloud sends everything to SwanLab; offline keeps it for swanlab sync; local is for good."
    )
    swanlab_api_key: str | None = ftk.option(
        None, help="Key for cloud; unset is the one that swanlab login has stored.", secret=True
    )
    swanlab_logdir: str | None = ftk.option(None, help="Folder of its files; unset is swanlog in the run directory.")
    swanlab_lark_webhook_url: str | None = ftk.option(
        None, help="Lark (Feishu) webhook that is told when the run ends.", secret=True
    )
    swanlab_lark_secret: str | None = ftk.option(None, help="Secret of that webhook.", secret=True)


class Swanlab:
    """One SwanLab run; what goes on with it later has the same id."""

    def __init__(self, told: Told, options: SwanlabOptions) -> None:
        import swanlab

        folder = options.swanlab_logdir or told.folder / "swanlog"
        quiet = {"interactive": False, "probe": {"runtime": False, "git": False}, "terminal": {"proxy_type": "none"}}
        if options.swanlab_mode == "cloud" and options.swanlab_api_key:
            quiet["api_key"] = options.swanlab_api_key
        self.before = list(Path(folder).glob(f"run-*-{told.id}/run-{told.id}.swanlab"))
        self.run = swanlab.init(
            mode=MODES[options.swanlab_mode],
            project=options.swanlab_project or told.project,
            workspace=options.swanlab_workspace,
            name=options.swanlab_run_name or told.name,
            log_dir=str(folder),
            id=told.id,
            resume="allow",
            config=told.everything,
            settings=swanlab.Settings(**quiet),
            callbacks=_callbacks(options),
        )

    def written(self) -> dict[str, int] | None:
        """What offline files hold; a killed process may have lost the last of it."""
        if not self.before:
            return None
        found: dict[str, int] = {}
        for path in self.before:
            for name, step, _ in scalars(path):
                found[name] = max(step, found.get(name, -1))
        return found

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.run.log(dict(metrics), step=step)

    def close(self, status: str, error: str) -> None:
        self.run.finish(state=STATES[status], error=error or (status if status != "finished" else None))


def scalars(path: Path) -> Iterator[tuple[str, int, float]]:
    """(metric, step, value) in the order of an offline file, up to where a killed process had got."""
    from swanlab.proto.swanlab.record.v1.record_pb2 import Record
    from swanlab.sdk.internal.core_python.store import DataStoreReader

    reader = DataStoreReader()
    try:
        reader.open(path)
        while (data := reader.scan()) is not None:
            record = Record.FromString(data)
            if record.HasField("scalar"):
                yield record.scalar.key, record.scalar.step, record.scalar.value.number
    except (AssertionError, ValueError, struct.error) as cut:
        log.info("%s: ends in the middle of a record (%s)", path, cut)
    reader.close()


def _callbacks(options: SwanlabOptions) -> list[Any]:
    if not options.swanlab_lark_webhook_url:
        return []
    from swanlab.plugin.notification import LarkCallback

    return [LarkCallback(options.swanlab_lark_webhook_url, options.swanlab_lark_secret)]


def start(run: Run) -> Background:
    from ftk_training.tracking import track

    return track(run, "swanlab", lambda told: Swanlab(told, run.options(SwanlabOptions)))


@ftk.hookimpl
def ftk_trackers() -> Iterator[ftk.Tracker]:
    yield ftk.Tracker(
        "swanlab",
        target="ftk_swanlab:start",
        switch="use_swanlab",
        requires=("swanlab",),
        extra="backend",
        options=SwanlabOptions,
        reads=("run_name", "project"),
        summary="SwanLab, offline unless swanlab_mode says cloud",
    )
