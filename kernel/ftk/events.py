"""Event hooks: what a plugin can watch while a run does its work, each with a whole plugin as its example.

Only the plugins that the run's plan names are called; what they raise is reported and does not end the run. An
implementation takes those of the arguments that it needs. A plugin that only observes switches itself on with a
``ModelPatch`` that has no target. Declaration hooks: :mod:`ftk.hookspecs`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ftk.hookspecs import hookspec

if TYPE_CHECKING:
    from ftk.run import Run
    from ftk.types import Metrics

EVENTS = ("ftk_run_started", "ftk_step_finished", "ftk_checkpoint_saved", "ftk_run_finished")


@hookspec
def ftk_run_started(run: Run) -> None:
    """A run is about to do its work.

    Called once, after the run directory was made and before anything is loaded. Gets the run; returns nothing.

    ``ftk_pid_file.py``, reached by ``pid_file: run.pid``::

        import os
        from pathlib import Path

        import ftk

        @ftk.options
        class PidOptions:
            pid_file: str | None = ftk.option(None, help="File that gets the process id; unset is none.")

        @ftk.hookimpl
        def ftk_model_patches():
            yield ftk.ModelPatch("pid-file", switch="pid_file", options=PidOptions, summary="The run's process id")

        @ftk.hookimpl
        def ftk_run_started(run):
            Path(run.options(PidOptions).pid_file).write_text(str(os.getpid()))
    """


@hookspec
def ftk_step_finished(run: Run, step: int, metrics: Metrics) -> None:
    """An optimizer step was logged.

    Called for each step that the trainer logs. Gets the run, the optimizer step (from 1) and the metrics, name →
    number; returns nothing. It runs between two steps, so it must be quick.

    ``ftk_heartbeat.py``, reached by ``heartbeat: /run/alive``::

        from pathlib import Path

        import ftk

        @ftk.options
        class HeartbeatOptions:
            heartbeat: str | None = ftk.option(None, help="File that is touched at each logged step; unset is none.")

        @ftk.hookimpl
        def ftk_model_patches():
            yield ftk.ModelPatch("heartbeat", switch="heartbeat", options=HeartbeatOptions, summary="For a watchdog")

        @ftk.hookimpl
        def ftk_step_finished(run):
            Path(run.options(HeartbeatOptions).heartbeat).touch()
    """


@hookspec
def ftk_checkpoint_saved(run: Run, step: int, path: Path) -> None:
    """A checkpoint is complete under its name.

    Called after a checkpoint was written, verified and renamed. Gets the run, the optimizer step (from 1) and the
    folder; returns nothing. The folder may be removed by a later checkpoint, so copy what should stay.

    ``ftk_mirror.py``, reached by ``mirror_dir: /backup``::

        import shutil
        from pathlib import Path

        import ftk

        @ftk.options
        class MirrorOptions:
            mirror_dir: str | None = ftk.option(None, help="Folder that gets a copy of each checkpoint; unset is none.")

        @ftk.hookimpl
        def ftk_model_patches():
            yield ftk.ModelPatch("mirror", switch="mirror_dir", options=MirrorOptions, summary="Copies checkpoints")

        @ftk.hookimpl
        def ftk_checkpoint_saved(run, path):
            shutil.copytree(path, Path(run.options(MirrorOptions).mirror_dir) / path.name, dirs_exist_ok=True)
    """


@hookspec
def ftk_run_finished(run: Run, error: BaseException | None) -> None:
    """A run has ended, well or not.

    Called once, after the trackers were closed. Gets the run and what ended it, None on success; returns nothing.

    ``ftk_afterwards.py``, reached by ``afterwards: 'notify-send "training ended"'``::

        import subprocess

        import ftk

        @ftk.options
        class AfterwardsOptions:
            afterwards: str | None = ftk.option(None, help="Shell command to call at the end; unset is none.")

        @ftk.hookimpl
        def ftk_model_patches():
            yield ftk.ModelPatch("afterwards", switch="afterwards", options=AfterwardsOptions, summary="A last command")

        @ftk.hookimpl
        def ftk_run_finished(run, error):
            subprocess.run(run.options(AfterwardsOptions).afterwards, shell=True, check=True)
    """
