"""TensorBoard's files, read back by TensorBoard's own ``EventAccumulator``."""

import json

import pytest

pytest.importorskip("tensorboard", reason='needs pip install "ftk-tensorboard[backend]"')
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData


def events_of(folder):
    read = EventAccumulator(str(folder))
    read.Reload()
    return read


def only(folder):
    (found,) = folder.iterdir()
    return found


def points(read, tag):
    """(step, value) in the order in which they were written, nothing left out."""
    return [(event.step, pytest.approx(event.value, rel=1e-6)) for event in read.Scalars(tag)]


def text(read, tag):
    return read.Tensors(tag)[-1].tensor_proto.string_val[0].decode()


def test_metrics_options_versions_and_the_end_are_in_the_files(tracked, as_it_was):
    done = tracked.run(report_to="tensorboard", run_name="mine", learning_rate=0.25, steps_secret="hush-hush")
    assert (done["error"], done["reached"], done["said"]) == ("", [], "")
    folder = only(tracked.out / "runs")
    assert folder.name.startswith("mine-")
    read = events_of(folder)
    losses, evaluations = as_it_was
    assert points(read, "train/loss") == list(losses.items())
    assert points(read, "eval/loss") == list(evaluations.items())
    assert "|learning_rate|0.25|" in text(read, "options")
    assert "|plugins/ftk-tensorboard|" in text(read, "made with")
    assert "|libraries/torch|" in text(read, "made with")
    assert text(read, "status") == "finished"
    start = HParamsPluginData.FromString(
        read.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    ).session_start_info
    assert start.hparams["learning_rate"].number_value == 0.25
    assert start.hparams["steps_secret"].string_value == "***"
    written = b"".join(path.read_bytes() for path in tracked.out.rglob("*") if path.is_file())
    assert b"hush-hush" not in written


def test_a_killed_run_goes_on_in_its_folder_without_a_step_twice(tracked, as_it_was):
    tracked.killed_and_resumed(report_to="tensorboard")
    read = events_of(only(tracked.out / "runs"))
    losses, evaluations = as_it_was
    assert points(read, "train/loss") == list(losses.items())
    assert points(read, "eval/loss") == list(evaluations.items())


def test_a_run_that_fails_says_so_and_another_one_has_a_folder_of_its_own(tracked):
    done = tracked.run(how="fail", report_to="tensorboard", logging_dir=str(tracked.folder / "logs"))
    assert done["error"] == "row 7 is broken"
    assert text(events_of(only(tracked.folder / "logs")), "status") == "failed: row 7 is broken"
    other = str(tracked.folder / "other" / "out")
    tracked.run(report_to="tensorboard", logging_dir=str(tracked.folder / "logs"), output_dir=other)
    assert len(list((tracked.folder / "logs").iterdir())) == 2


def test_a_training_run_logs_what_its_log_file_holds(ftk_run):
    done = ftk_run(report_to="tensorboard", template="chatml", do_eval=True, val_size=1, eval_strategy="steps")
    read = events_of(only(done.folder / "runs"))
    lines = [json.loads(line) for line in (done.folder / "trainer_log.jsonl").read_text().splitlines()]
    assert points(read, "train/loss") == [(line["step"], line["loss"]) for line in lines if "loss" in line]
    assert points(read, "eval/loss") == [(line["step"], line["eval_loss"]) for line in lines if "eval_loss" in line]
