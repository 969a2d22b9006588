"""What trainers share, on top of transformers' Trainer. A library plugin: it declares options, and the kinds of
features that checks of a run and metrics of its answers are.

A stage is a few lines: its rows come from ``ftk_data``, its loss is the model's own or a function, and the rest is
:func:`ftk_training.fitting.fit`. Nothing here imports torch; the modules behind do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import ftk

from ftk_training.checks import Check
from ftk_training.options import TrainingOptions
from ftk_training.prediction import Metric, PredictionOptions

if TYPE_CHECKING:
    from ftk.run import Run

__all__ = ["Check", "Metric", "PredictionOptions", "TrainingOptions"]


@ftk.hookimpl
def ftk_kinds() -> Iterator[ftk.Kind]:
    yield ftk.Kind(Check, "ftk_checks", many=True, within="command:verify")
    yield ftk.Kind(
        Metric, "ftk_metrics", selector="metrics", switch="predict_with_generate", many=True, within="engine"
    )


@ftk.hookimpl
def ftk_run_started(run: Run) -> None:
    """Signals are heard from here on, before anything is loaded."""
    from ftk_training import interrupting

    interrupting.of(run).start()


@ftk.hookimpl
def ftk_run_finished(run: Run) -> None:
    from ftk_training import interrupting

    interrupting.of(run).stop()
