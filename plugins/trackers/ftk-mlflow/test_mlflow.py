"""MLflow's store, read back by MLflow's own client."""

import pytest

pytest.importorskip("mlflow", reason='needs pip install "ftk-mlflow[backend]"')
pytest.importorskip("alembic", reason='needs pip install "ftk-mlflow[backend]"')
from mlflow.tracking import MlflowClient


def runs_of(store, experiment="mine"):
    client = MlflowClient(f"sqlite:///{store}")
    found = client.get_experiment_by_name(experiment)
    return client, client.search_runs([found.experiment_id])


def points(client, run, name):
    """(step, value) of everything that was ever written."""
    return sorted((one.step, one.value) for one in client.get_metric_history(run.info.run_id, name))


def test_metrics_options_versions_and_the_end_are_in_the_store(tracked, as_it_was):
    done = tracked.run(
        report_to="mlflow", run_name="first", project="mine", learning_rate=0.25, steps_secret="hush-hush",
        variables={"MLFLOW_TRACKING_URI": "http://192.0.2.1:5000"},
    )  # fmt: skip
    assert (done["error"], done["reached"], done["said"], done["printed"]) == ("", [], "", [])
    client, (run,) = runs_of(tracked.out / "mlflow.db")
    losses, evaluations = as_it_was
    assert points(client, run, "train/loss") == list(losses.items())
    assert points(client, run, "eval/loss") == list(evaluations.items())
    assert (run.info.run_name, run.info.status) == ("first", "FINISHED")
    assert run.data.params["learning_rate"] == "0.25"
    assert run.data.params["steps_secret"] == "***"
    assert {"ftk/plugins/ftk-mlflow", "ftk/libraries/torch", "ftk/seed"} <= run.data.params.keys()
    written = b"".join(path.read_bytes() for path in tracked.out.rglob("*") if path.is_file())
    assert b"hush-hush" not in written


def test_a_killed_run_goes_on_in_the_same_one_without_a_step_twice(tracked, as_it_was):
    tracked.killed_and_resumed(report_to="mlflow", project="mine")
    client, (run,) = runs_of(tracked.out / "mlflow.db")
    losses, evaluations = as_it_was
    assert points(client, run, "train/loss") == list(losses.items())
    assert points(client, run, "eval/loss") == list(evaluations.items())
    assert run.info.status == "FINISHED"


@pytest.mark.parametrize(("how", "status"), [("fail", "FAILED"), ("stop", "KILLED")])
def test_how_a_run_ended_is_told(tracked, how, status):
    store = tracked.folder / "of_many.db"
    tracked.run(how=how, report_to="mlflow", mlflow_tracking_uri=f"sqlite:///{store}", mlflow_experiment="mine")
    _, (run,) = runs_of(store)
    assert run.info.status == status
    assert not (tracked.out / "mlflow.db").exists()


def test_a_store_that_cannot_be_reached_does_not_end_the_run(tracked):
    done = tracked.run(report_to="mlflow", mlflow_tracking_uri="sqlite:////dev/null/mlflow.db")
    assert done["error"] == ""
    assert done["said"].count("tracker mlflow: could not be started, nothing is written there") == 1
