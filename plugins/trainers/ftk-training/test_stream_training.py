"""Training on rows that stream.

References: the row sequence of the stream itself, read without any trainer; and runs that differ only in how many
processes and workers they have, which must train the same.
"""

import json
import shutil
import subprocess
import sys
from itertools import islice

import ftk
import numpy as np
import pytest
import torch
from accelerate.data_loader import BatchSamplerShard, SkipBatchSampler
from ftk.run import Run
from ftk.testing.runs import plan_in
from ftk_data.sequences import TokenRows
from ftk_training import checkpoints, fitting, trainer
from ftk_training.streams import Stream
from torch.utils.data import BatchSampler

SETTINGS = {
    "model_name_or_path": "ftk://random/llama",
    "finetuning_type": "full",
    "template": "chatml",
    "streaming": True,
    "buffer_size": 5,
    "max_steps": 6,
    "per_device_train_batch_size": 2,
    "save_strategy": "steps",
    "save_steps": 2,
}


@pytest.fixture(autouse=True)
def one_thread():
    """Sums over another number of threads round differently."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def dataset(tmp_path):
    path = tmp_path / "uneven.json"
    words = ["count " * (1 + number % 3) + "one two " * (1 + number) for number in range(9)]
    path.write_text(json.dumps([{"instruction": text, "output": text} for text in words]))
    return str(path)


def losses(folder):
    lines = [json.loads(line) for line in (folder / "trainer_log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def report(folder):
    return json.loads((folder / "data_report.json").read_text())["train"]


@pytest.fixture
def seen(monkeypatch):
    """The batches that a trainer gets, as lists of the tokens of their rows."""
    batches = []
    step = trainer.ExactTrainer.training_step

    def noted(self, model, inputs, *arguments):
        kept = inputs["attention_mask"].bool()
        batches.append([ids[mask].tolist() for ids, mask in zip(inputs["input_ids"], kept, strict=True)])
        return step(self, model, inputs, *arguments)

    monkeypatch.setattr(trainer.ExactTrainer, "training_step", noted)
    return batches


def sequence(folder, num, **settings):
    rows = Run(plan_in(folder, **settings)).rows("train")
    return [row["input_ids"].tolist() for row in islice(rows, num)]


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_any_number_of_workers_gives_the_sequence_of_the_stream(ftk_run, tmp_path, dataset, seen, num_workers):
    settings = {**SETTINGS, "dataset": dataset, "gradient_accumulation_steps": 2}
    wanted = sequence(tmp_path, 24, **settings)
    ftk_run(**settings, dataloader_num_workers=num_workers)
    assert [row for batch in seen for row in batch] == wanted
    assert {len(batch) for batch in seen} == {2}


class Given:
    """As much of a trainer as a :class:`Stream` asks for."""

    def __init__(self, rows_per_step):
        self.args = type("Args", (), {"train_sampling_strategy": "random", "gradient_accumulation_steps": 1})
        self.get_total_train_batch_size = lambda args: rows_per_step


@pytest.mark.parametrize(("num_processes", "batch_size"), [(1, 8), (2, 4), (4, 2), (8, 1)])
@pytest.mark.parametrize("skipped", [0, 3])
def test_processes_share_the_same_global_batches(num_processes, batch_size, skipped):
    """As transformers and accelerate put their loaders together; ``skipped`` batches as after a resume."""

    def of_process(index):
        stream = Stream(Given(8), range(40))
        stream.skip(skipped)
        batches = BatchSampler(stream, batch_size, drop_last=False)
        shard = BatchSamplerShard(batches, num_processes, index)
        return list(SkipBatchSampler(shard, skipped))

    processes = [of_process(index) for index in range(num_processes)]
    together = [[row for batch in batches for row in batch] for batches in zip(*processes, strict=True)]
    assert together == np.arange(40).reshape(5, 8).tolist()


def test_a_resume_reads_no_row_twice_but_those_of_the_buffer(ftk_run, tmp_path, dataset, seen):
    """transformers would put together all earlier batches only to throw them away."""
    settings = {**SETTINGS, "dataset": dataset}
    folder = ftk_run(**settings).folder
    every = list(seen)
    seen.clear()
    interrupted(folder, 4)
    ftk_run(**settings)
    assert seen == every[4:]
    assert report(folder)["num_rows"] == 12


def test_a_resume_without_streaming_makes_none_of_the_earlier_rows(ftk_run, tmp_path, dataset, monkeypatch):
    """They are passed over by their numbers."""
    made = []
    row = TokenRows.row
    monkeypatch.setattr(TokenRows, "row", lambda self, index: made.append(index) or row(self, index))
    settings = {**SETTINGS, "streaming": False, "per_device_train_batch_size": 1, "max_steps": 9, "dataset": dataset}
    folder = ftk_run(**settings).folder
    every = list(made)
    made.clear()
    interrupted(folder, 6)
    ftk_run(**settings)
    assert made == every[6:9]


def interrupted(folder, step):
    for path in checkpoints.checkpoints_of(folder):
        if int(path.name.split("-")[1]) > step:
            shutil.rmtree(path)
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**record, "status": "running"}))


def test_the_report_of_a_checkpoint_counts_what_was_trained(ftk_run, tmp_path, dataset, monkeypatch):
    reports = []
    save = Stream.save
    monkeypatch.setattr(
        Stream, "save", lambda self, folder: (save(self, folder), reports.append(report(folder.parent)))
    )
    folder = ftk_run(**SETTINGS, dataset=dataset, val_size=2, eval_strategy="steps", eval_steps=3).folder
    assert [one["num_rows"] for one in reports] == [4, 8, 12]
    told = report(folder)
    assert told == reports[-1]
    assert told["datasets"] == {"uneven": {"rows_read": 7, "rows_used": 7}}
    log = [json.loads(line) for line in (folder / "trainer_log.jsonl").read_text().splitlines()]
    assert told["num_tokens"] == max(line.get("num_tokens", 0) for line in log)
    assert sum("eval_loss" in line for line in log) == 2


def test_disable_shuffling_keeps_the_order_of_the_file(tmp_path, dataset):
    settings = {**SETTINGS, "dataset": dataset}
    one = sequence(tmp_path, 9, **settings, disable_shuffling=True)
    assert one == sequence(tmp_path, 9, **{**settings, "buffer_size": 1})
    assert one != sequence(tmp_path, 9, **settings)
    assert sequence(tmp_path, 9, **settings) != sequence(tmp_path, 9, **settings, data_seed=1)


def test_without_max_steps_the_error_is_one_line(ftk_run, dataset):
    with pytest.raises(ftk.ConfigError, match=r"^the test: streaming: True: needs max_steps, because a stream has no"):
        ftk_run(**{**SETTINGS, "max_steps": -1}, dataset=dataset)


def test_grouping_by_length_is_refused(ftk_run, dataset):
    with pytest.raises(ftk.ConfigError, match=r"train_sampling_strategy: .*needs the lengths of all rows"):
        ftk_run(**SETTINGS, dataset=dataset, train_sampling_strategy="group_by_length")


def test_a_malformed_row_ends_the_training_with_its_line(ftk_run, tmp_path):
    path = tmp_path / "bad.jsonl"
    good = json.dumps({"instruction": "a", "output": "b"})
    path.write_text(f"{good}\n" * 600 + '{"instruction": "a"}\n')
    settings = {**SETTINGS, "max_steps": 400, "save_strategy": "no", "logging_strategy": "no", "dataset": str(path)}
    with pytest.raises(ftk.DataError, match=r"bad: bad.jsonl:601: .*on_bad_row skip"):
        ftk_run(**settings)


def test_a_checkpoint_of_a_run_that_did_not_stream_begins_the_data_anew(ftk_run, tmp_path, dataset, seen, caplog):
    folder = ftk_run(**{**SETTINGS, "streaming": False, "max_steps": 2}, dataset=dataset).folder
    seen.clear()
    more = {"output_dir": str(tmp_path / "more"), "resume_from_checkpoint": str(folder / "checkpoint-2")}
    ftk_run(**SETTINGS, dataset=dataset, **more)
    assert "did not stream, so the data begins anew" in caplog.text
    assert [row for batch in seen for row in batch] == sequence(tmp_path, 8, **SETTINGS, dataset=dataset)


def test_logits_are_computed_only_where_somebody_learns(ftk_run, dataset, monkeypatch):
    kept = []
    decide = fitting.can_keep_logits
    monkeypatch.setattr(fitting, "can_keep_logits", lambda trainer: kept.append(decide(trainer)) or kept[-1])
    ftk_run(**SETTINGS, dataset=dataset)
    assert kept == [True]


TWO_PROCESSES = """
import json, sys
from pathlib import Path
from ftk.run import Run
from ftk.testing.runs import plan_in
from ftk_training.fitting import fit
run = Run(plan_in(Path(sys.argv[2]), **json.loads(sys.argv[1])))
run.output_dir.mkdir(exist_ok=True)
run.continues = bool(list(run.output_dir.glob("checkpoint-*")))
fit(run)
"""


def test_two_processes_go_on_where_one_stopped_and_train_the_same(ftk_run, tmp_path, dataset):
    settings = {**SETTINGS, "dataset": dataset, "ddp_backend": "gloo", "learning_rate": 1e-4}
    one = ftk_run(**settings).folder
    wanted = losses(one)
    shutil.copytree(one / "checkpoint-2", tmp_path / "two" / "checkpoint-2")
    (tmp_path / "two.py").write_text(TWO_PROCESSES)
    settings |= {"per_device_train_batch_size": 1, "output_dir": str(tmp_path / "two")}
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", "two.py"]
    arguments = [*command, json.dumps(settings), str(tmp_path)]
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    assert losses(tmp_path / "two") == pytest.approx(wanted[2:], rel=1e-4)
    states = [json.loads((folder / "checkpoint-6" / "stream.json").read_text()) for folder in (one, tmp_path / "two")]
    assert states[0] == states[1]
