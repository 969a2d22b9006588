"""MLflow: an SQLite store in the run directory, unless ``mlflow_tracking_uri`` names another.

Uses the client with a run's id instead of ``mlflow.log_metric``, whose active run belongs to one thread. MLflow's own
telemetry is turned off.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import ftk

if TYPE_CHECKING:
    from ftk.run import Run
    from ftk_training.tracking import Background, Told

STATUS = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
LONGEST = 500
"""Characters of a parameter's value that older servers take."""
MOST = 100
"""Parameters of one call."""


@ftk.options
class MlflowOptions:
    """Where a run goes in MLflow."""

    mlflow_tracking_uri: str | None = ftk.option(
        None,
        help="A server (http://...), a database (sqlite:///...); unset is sqlite in the run directory. The "
        "environment's MLFLOW_TRACKING_URI has no effect.",
    )
    mlflow_experiment: str | None = ftk.option(None, help="Experiment; unset is project.")


class Mlflow:
    """One run of a store."""

    def __init__(self, told: Told, options: MlflowOptions) -> None:
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # read when mlflow is imported
        os.environ["MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"] = "false"
        from mlflow.tracking import MlflowClient

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)  # the tables of a new store are a page of lines
        uri = options.mlflow_tracking_uri or f"sqlite:///{told.folder / 'mlflow.db'}"
        self.client = MlflowClient(uri)
        experiment = options.mlflow_experiment or told.project
        found = self.client.get_experiment_by_name(experiment)
        if found is None:
            artifacts = None if options.mlflow_tracking_uri else (told.folder / "mlartifacts").as_uri()
            number = self.client.create_experiment(experiment, artifact_location=artifacts)
        else:
            number = found.experiment_id
        self.run_id = self._same(number, told) or self._new(number, told)

    def _same(self, experiment: str, told: Told) -> str:
        """The run that an earlier process began; empty when there is none."""
        found = self.client.search_runs([experiment], f"tags.`ftk.id` = '{told.id}'") if told.resumed else ()
        for run in found:
            self.client.update_run(run.info.run_id, status="RUNNING")
            return str(run.info.run_id)
        return ""

    def _new(self, experiment: str, told: Told) -> str:
        from mlflow.entities import Param

        tags = {"ftk.id": told.id, "mlflow.source.name": "ftk", "mlflow.user": "ftk"}  # no command line, no login
        run_id = str(self.client.create_run(experiment, run_name=told.name, tags=tags).info.run_id)
        values = [Param(name, str(value)[:LONGEST]) for name, value in told.everything.items()]
        for begin in range(0, len(values), MOST):
            self.client.log_batch(run_id, params=values[begin : begin + MOST])
        return run_id

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        values = [Metric(name, value, now, step) for name, value in metrics.items()]
        self.client.log_batch(self.run_id, metrics=values)

    def close(self, status: str, error: str) -> None:
        if error:
            self.client.set_tag(self.run_id, "error", error)
        self.client.set_terminated(self.run_id, STATUS[status])


def start(run: Run) -> Background:
    from ftk_training.tracking import track

    def connect(told: Told) -> Any:
        return Mlflow(told, run.options(MlflowOptions))

    return track(run, "mlflow", connect)


@ftk.hookimpl
def ftk_trackers() -> Iterator[ftk.Tracker]:
    yield ftk.Tracker(
        "mlflow",
        target="ftk_mlflow:start",
        requires=("mlflow", "sqlalchemy", "alembic"),
        extra="backend",
        options=MlflowOptions,
        reads=("run_name", "project"),
        summary="MLflow, in an SQLite store of the run directory unless told otherwise",
    )
