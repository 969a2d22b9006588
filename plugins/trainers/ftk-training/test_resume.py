"""A run that is killed and started again. Reference: the same run, undisturbed; every logged number must be the same.

The killed runs are real processes: one process imports torch once and forks a child for each start, because a start
from nothing takes seconds. A child runs as ``ftk run`` does and gets SIGKILL from its parent.
"""

import json
import logging
import shutil
import subprocess
import sys

import pytest
import torch
from ftk import CheckpointError, ConfigError, rundir
from ftk.testing.runs import run_in
from ftk_training import checkpoints
from safetensors import safe_open
from transformers import AutoModelForCausalLM

SETTINGS = {
    "model_name_or_path": "ftk://random/llama?attention_dropout=0.1",
    "finetuning_type": "full",
    "template": "chatml",
    "max_steps": 11,
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 2,
    "logging_steps": 3,
    "save_strategy": "steps",
    "save_steps": 2,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 2,
}
TIMES = ("seconds", "tokens_per_second", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second")


def rows_file(folder, count=7):
    """An odd number of rows of uneven lengths, so that epochs end in the middle of everything."""
    path = folder / "uneven.json"
    rows = [
        {"instruction": "count " * (1 + number % 3), "output": "one two " * (1 + number)} for number in range(count)
    ]
    path.write_text(json.dumps(rows))
    return str(path)


def log_of(folder):
    """The log without what differs from run to run."""
    lines = [json.loads(line) for line in (folder / "trainer_log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


def keep_only(folder, step):
    """Leave a run directory as a kill after ``checkpoint-STEP`` leaves it."""
    for path in checkpoints.checkpoints_of(folder):
        if int(path.name.split("-")[1]) > step:
            shutil.rmtree(path)
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**record, "status": "running"}))


@pytest.fixture(autouse=True)
def one_thread():
    """Sums over another number of threads round differently; the forked children have one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def made_once(tmp_path_factory):
    """The undisturbed run, and the file of its rows."""
    folder = tmp_path_factory.mktemp("undisturbed")
    torch.set_num_threads(1)
    return run_in(folder, **SETTINGS, dataset=rows_file(folder)).folder, folder / "uneven.json"


@pytest.fixture
def undisturbed(made_once, tmp_path):
    """A copy of it, with its rows, where the test's own runs are."""
    folder, rows = made_once
    shutil.copyfile(rows, tmp_path / "uneven.json")
    shutil.copytree(folder, tmp_path / "out")
    record = json.loads((folder / "run.json").read_text())
    record["options"]["dataset"] = str(tmp_path / "uneven.json")
    (tmp_path / "out" / "run.json").write_text(json.dumps(record))
    return tmp_path / "out"


@pytest.mark.parametrize("step", [2, 4, 8, 10, 11])
def test_the_losses_after_a_resume_are_those_of_the_undisturbed_run(ftk_run, tmp_path, undisturbed, step):
    """4 and 8 are the ends of epochs; logging every 3 steps never meets a checkpoint; 11 is the last step."""
    wanted, weights = log_of(undisturbed), (undisturbed / "model.safetensors").read_bytes()
    keep_only(undisturbed, step)
    again = ftk_run(**SETTINGS, dataset=rows_file(tmp_path))
    assert log_of(again.folder) == wanted
    assert (again.folder / "model.safetensors").read_bytes() == weights
    assert again.record["status"] == "finished"


@pytest.mark.parametrize(
    "more",
    [
        {"train_sampling_strategy": "group_by_length"},
        {"disable_shuffling": True},
        {"eval_strategy": "epoch", "val_size": 2, "logging_strategy": "epoch", "save_steps": 1},
        {"finetuning_type": "lora", "lora_dropout": 0.2},
        {"dataloader_num_workers": 1},
        {"streaming": True, "buffer_size": 3},
        {"buffer_size": 3, "streaming": True, "dataloader_num_workers": 2},
        {"packing": True, "streaming": True},
        {"model_name_or_path": "ftk://random/llama?tie_word_embeddings=true"},
        {"model_name_or_path": "ftk://random/mixtral"},
        {"model_name_or_path": "ftk://random/qwen3_moe", "finetuning_type": "lora"},
        {"optim": "adafactor", "max_steps": -1, "num_train_epochs": 2.5},
    ],
    ids=lambda more: str(next(iter(more.items()))),
)
def test_a_resume_is_exact_with(ftk_run, tmp_path, more):
    settings = {**SETTINGS, **more, "dataset": rows_file(tmp_path)}
    folder = ftk_run(**settings).folder
    wanted = log_of(folder)
    keep_only(folder, 4)
    assert log_of(ftk_run(**settings).folder) == wanted


def test_the_result_of_a_model_with_experts_has_the_published_layout(ftk_run, tmp_path):
    """Programs that serve models look for a matrix of each expert; checkpoints have them all in one."""
    settings = {**SETTINGS, "model_name_or_path": "ftk://random/mixtral", "max_steps": 2}
    folder = ftk_run(**settings, dataset=rows_file(tmp_path)).folder
    expert = "model.layers.0.block_sparse_moe.experts.0.w1.weight"
    with (
        safe_open(folder / "model.safetensors", "pt") as result,
        safe_open(folder / "checkpoint-2" / "model.safetensors", "pt") as checkpoint,
    ):
        assert expert in result.keys()  # noqa: SIM118
        assert expert not in checkpoint.keys()  # noqa: SIM118
    again, info = AutoModelForCausalLM.from_pretrained(folder / "checkpoint-2", output_loading_info=True)
    assert not info["missing_keys"]
    for name, weight in AutoModelForCausalLM.from_pretrained(folder).state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], weight, rtol=0, atol=0)


ZYGOTE = """
import json, os, random, signal, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
import ftk_training.fitting, ftk_hf.loading, transformers.models.llama.modeling_llama
from ftk.run import execute
from ftk.testing.runs import plan_in

found = []
for settings, seconds in json.loads(sys.argv[1]):
    rng, killed, started, folder = random.Random(7), 0, 0, Path.cwd()
    while True:
        out = folder / f"out-{len(found)}-{started}"
        while True:
            child = os.fork()
            if child == 0:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                try:
                    execute(plan_in(folder, **settings, output_dir=str(out)))
                    os._exit(0)
                except BaseException:
                    import traceback
                    traceback.print_exc()
                    os._exit(1)
            if killed < KILLS:
                time.sleep(rng.uniform(0.02, seconds))
                os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            if os.WIFSIGNALED(status):
                killed += 1
                continue
            if os.WEXITSTATUS(status):
                sys.exit(1)
            break
        started += 1
        if killed >= KILLS:
            found.append(started)
            break
print(json.dumps(found))
""".replace("KILLS", "5")


def test_no_instant_of_a_kill_changes_a_loss(ftk_run, tmp_path):
    """Five kills, spread by a fixed seed over the time that a whole run takes, with rows on disk and streamed."""
    given, whole = [], []
    for number, more in enumerate(({}, {"streaming": True, "buffer_size": 3})):
        settings = {**SETTINGS, **more, "dataset": rows_file(tmp_path)}
        whole.append(ftk_run(**settings, output_dir=str(tmp_path / f"whole-{number}")).folder)
        given.append([settings, json.loads((whole[-1] / "all_results.json").read_text())["train_runtime"] + 0.3])
    command = [sys.executable, "-c", ZYGOTE, json.dumps(given)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    for number, started in enumerate(json.loads(done.stdout.splitlines()[-1])):
        for start in range(started):
            out = tmp_path / f"out-{number}-{start}"
            assert log_of(out) == log_of(whole[number])
            assert (out / "model.safetensors").read_bytes() == (whole[number] / "model.safetensors").read_bytes()
            assert not list(out.glob(f"{rundir.ASIDE}*"))


def test_a_damaged_checkpoint_is_skipped_and_the_log_says_why(ftk_run, tmp_path, undisturbed, caplog):
    wanted = log_of(undisturbed)
    keep_only(undisturbed, 8)
    weights = undisturbed / "checkpoint-8" / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with caplog.at_level(logging.INFO, logger="ftk"):
        again = ftk_run(**SETTINGS, dataset=rows_file(tmp_path))
    lines = [record.getMessage() for record in caplog.records if "checkpoint-8" in record.getMessage()]
    assert len(lines) == 1
    assert "model.safetensors has changed" in lines[0]
    assert "checkpoint-6 is used instead" in lines[0]
    assert log_of(again.folder) == wanted


def test_a_run_killed_before_its_first_checkpoint_starts_at_the_beginning(ftk_run, tmp_path, undisturbed):
    wanted = log_of(undisturbed)
    keep_only(undisturbed, 0)
    assert log_of(ftk_run(**SETTINGS, dataset=rows_file(tmp_path)).folder) == wanted


def test_half_a_line_in_the_log_does_no_harm(ftk_run, tmp_path, undisturbed):
    wanted = log_of(undisturbed)
    keep_only(undisturbed, 8)
    with (undisturbed / "trainer_log.jsonl").open("a") as file:
        file.write('{"step": 1')
    assert log_of(ftk_run(**SETTINGS, dataset=rows_file(tmp_path)).folder) == wanted


def test_asking_for_a_checkpoint_that_is_not_there_is_an_error(ftk_run, tmp_path):
    with pytest.raises(CheckpointError, match="there is no complete checkpoint"):
        ftk_run(**SETTINGS, dataset=rows_file(tmp_path), resume_from_checkpoint=True)
    with pytest.raises(CheckpointError, match="there is no such folder"):
        ftk_run(**SETTINGS, dataset=rows_file(tmp_path), resume_from_checkpoint=str(tmp_path / "nowhere"))


def test_a_checkpoint_without_optimizer_cannot_be_resumed(ftk_run, tmp_path):
    folder = ftk_run(**SETTINGS, dataset=rows_file(tmp_path), save_only_model=True).folder
    assert not list(folder.glob("checkpoint-*/optimizer*"))
    with pytest.raises(CheckpointError, match="save_only_model"):
        ftk_run(**SETTINGS, dataset=rows_file(tmp_path), resume_from_checkpoint=str(folder / "checkpoint-4"))


def test_a_finished_run_can_be_trained_on(ftk_run, tmp_path, undisturbed):
    longer = {**SETTINGS, "max_steps": 13, "dataset": rows_file(tmp_path), "resume_from_checkpoint": True}
    folder = ftk_run(**longer).folder
    assert [line["step"] for line in log_of(folder)] == [3, 6, 9, 11, 12, 13]


def test_save_total_limit_keeps_the_newest_and_the_best(ftk_run, tmp_path):
    """The loss falls, and greater is called better, so the first evaluation is the best."""
    more = {"eval_strategy": "steps", "eval_steps": 2, "val_size": 2, "save_total_limit": 2}
    more |= {"load_best_model_at_end": True, "greater_is_better": True}
    folder = ftk_run(**{**SETTINGS, **more}, dataset=rows_file(tmp_path)).folder
    losses = {line["step"]: line["eval_loss"] for line in log_of(folder) if "eval_loss" in line}
    best = max(losses, key=losses.get)
    kept = [path.name for path in checkpoints.checkpoints_of(folder)]
    assert kept == [f"checkpoint-{best}", "checkpoint-11"] == ["checkpoint-2", "checkpoint-11"]
    assert (folder / "model.safetensors").read_bytes() == (folder / f"checkpoint-{best}/model.safetensors").read_bytes()


def test_what_was_just_saved_stays_when_a_damaged_checkpoint_has_a_higher_number(ftk_run, tmp_path):
    """The run goes on from 2 because 4 is damaged, and saves 3 where only one is to be kept."""
    settings = {**SETTINGS, "dataset": rows_file(tmp_path), "save_total_limit": 3}
    folder = ftk_run(**{**settings, "max_steps": 4}).folder
    (folder / "checkpoint-4" / "model.safetensors").write_bytes(b"damaged")
    more = {"save_total_limit": 1, "save_steps": 1, "max_steps": 3, "resume_from_checkpoint": True}
    ftk_run(**{**settings, **more})
    assert [path.name for path in checkpoints.checkpoints_of(folder)] == ["checkpoint-3"]
    assert not rundir.damage(folder / "checkpoint-3")


def test_the_best_checkpoint_and_patience_are_those_of_the_undisturbed_run(ftk_run, tmp_path, monkeypatch):
    """At this rate the loss rises after a while, so the best is not the last; stopped in the middle of the patience."""
    more = {"eval_strategy": "steps", "eval_steps": 2, "val_size": 2, "load_best_model_at_end": True, "max_steps": 40}
    more |= {"early_stopping_steps": 4, "learning_rate": 0.02, "lr_scheduler_type": "constant", "save_total_limit": 1}
    settings = {**SETTINGS, **more, "dataset": rows_file(tmp_path)}
    whole = ftk_run(**settings, output_dir=str(tmp_path / "whole"))
    best, last = checkpoints.checkpoints_of(whole.folder)
    assert int(last.name.split("-")[1]) == int(best.name.split("-")[1]) + 8 < 40
    middle = int(best.name.split("-")[1]) + 4
    save = checkpoints.save

    def killed(trainer):
        save(trainer)
        if trainer.state.global_step == middle:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        ftk_run(**settings)
    monkeypatch.undo()
    again = ftk_run(**settings)
    assert log_of(again.folder) == log_of(whole.folder)
    assert {path.name for path in checkpoints.checkpoints_of(again.folder)} == {best.name, last.name}
    weights = [(folder / "model.safetensors").read_bytes() for folder in (again.folder, whole.folder)]
    assert weights[0] == weights[1] == (best.parent / best.name / "model.safetensors").read_bytes()


def test_a_directory_of_another_run_is_refused(ftk_run, tmp_path, undisturbed):
    """Another is one whose options differ, or whose rows do; where it is written and told of makes no other."""
    wanted = log_of(undisturbed)
    keep_only(undisturbed, 4)
    with pytest.raises(ConfigError, match=r"differs in learning_rate\. .* choose another output_dir"):
        ftk_run(**SETTINGS, dataset=rows_file(tmp_path), learning_rate=1e-4)
    with pytest.raises(ConfigError, match="differs in model_name_or_path"):
        ftk_run(**{**SETTINGS, "model_name_or_path": "ftk://random/llama"}, dataset=rows_file(tmp_path))
    with pytest.raises(CheckpointError, match=r"checkpoint-4: the rows of uneven have changed since it was saved"):
        ftk_run(**SETTINGS, dataset=rows_file(tmp_path, 8))
    assert {path.name for path in checkpoints.checkpoints_of(undisturbed)} == {"checkpoint-2", "checkpoint-4"}
    again = ftk_run(**SETTINGS, dataset=rows_file(tmp_path), report_to="none")
    assert log_of(again.folder) == wanted


def test_rows_that_have_changed_are_trained_when_that_is_said(ftk_run, tmp_path, undisturbed, caplog):
    keep_only(undisturbed, 4)
    ftk_run(**SETTINGS, dataset=rows_file(tmp_path, 8), resume_from_checkpoint=True)
    assert "the rows of uneven have changed since it was saved; it goes on with them as they are" in caplog.text


FULL_DISK = """
import json, os, resource, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
import ftk_hf.loading, ftk_training.fitting
import ftk_training.checkpoints as checkpoints
from ftk.errors import CheckpointError
from ftk.run import execute
from ftk.testing.runs import plan_in
save = checkpoints.save
for room in json.loads(sys.argv[2]):
    if os.fork():
        os.wait()
        continue
    def limited(trainer):
        if trainer.state.global_step == 4:
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
        return save(trainer)
    checkpoints.save = limited
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try:
        execute(plan_in(Path.cwd(), **json.loads(sys.argv[1]), output_dir=str(room)))
    except CheckpointError as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        Path(f"said-{room}").write_text(str(error))
    os._exit(0)
"""


def test_a_write_that_fails_is_one_line_and_earlier_checkpoints_stay(tmp_path):
    """A limit on the size of files stands in for a full disk: writes fail in the same places, which are the tokenizer,
    the weights and the optimizer."""
    settings, rooms = {**SETTINGS, "dataset": rows_file(tmp_path)}, [100_000, 1_000_000, 2_000_000]
    command = [sys.executable, "-c", FULL_DISK, json.dumps(settings), json.dumps(rooms)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    for room in rooms:
        said = (tmp_path / f"said-{room}").read_text()
        assert "\n" not in said
        assert "checkpoint-4: cannot be written" in said
        assert "start the same command again" in said
        left = {path.name for path in (tmp_path / str(room)).iterdir() if path.is_dir()}
        assert left == {"checkpoint-2"}
        assert rundir.damage(tmp_path / str(room) / "checkpoint-2") == ""


TWO_PROCESSES = """
import json, sys
from pathlib import Path
from ftk.run import Run
from ftk.testing.runs import plan_in
from ftk_training.fitting import fit
run = Run(plan_in(Path(sys.argv[2]), **json.loads(sys.argv[1])))
run.output_dir.mkdir(exist_ok=True)
run.continues = bool(checkpoints := list(run.output_dir.glob("checkpoint-*")))
fit(run)
"""


def test_two_processes_train_as_one_with_twice_the_batch_and_resume_exactly(ftk_run, tmp_path):
    settings = {**SETTINGS, "model_name_or_path": "ftk://random/llama", "dataset": rows_file(tmp_path, 8)}
    settings |= {"disable_shuffling": True, "max_steps": 5, "logging_steps": 2, "ddp_backend": "gloo"}
    one = ftk_run(**{**settings, "per_device_train_batch_size": 2}, output_dir=str(tmp_path / "one")).folder
    (tmp_path / "two.py").write_text(TWO_PROCESSES)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", "two.py"]

    def run_two():
        arguments = [*command, json.dumps(settings), str(tmp_path)]
        done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr[-3000:]
        return log_of(tmp_path / "out")

    two = run_two()
    for ours, reference in zip(two, log_of(one), strict=True):
        assert ours == pytest.approx(reference, rel=1e-4)
    newest = tmp_path / "out" / "checkpoint-2"
    assert {path.name for path in newest.glob("rng_state*")} == {"rng_state_0.pth", "rng_state_1.pth"}
    assert rundir.damage(newest) == ""
    for path in checkpoints.checkpoints_of(tmp_path / "out"):
        if path != newest:
            shutil.rmtree(path)
    assert run_two() == two
