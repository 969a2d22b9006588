"""Rows that several processes make together, that a kill interrupts, and that a disk damages or refuses.

Reference: the rows that one process makes without any of this.
"""

import errno
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import ftk
import numpy as np
import pytest
from ftk_data import shards, store
from ftk_data.rows import build_chat, build_pairs
from ftk_data.shards import Shards
from ftk_data.work import Work

SIZE, NUM = 4, 42


def talk(number):
    turns = [{"role": "user", "content": f"Say {number}"}, {"role": "assistant", "content": "is " * (number % 7)}]
    return {"messages": turns}


EXAMPLES = [
    {"bad": "is no example"} if number % 13 == 5 else {"empty": True} if number % 13 == 7 else talk(number)
    for number in range(NUM)
]


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(shards, "SHARD", SIZE)


@pytest.fixture
def pieces_made(monkeypatch):
    """The first source row of each stretch that this process has tokenised."""
    made, piece = [], Work.piece

    def noted(self, first, *rest):
        made.append(first)
        return piece(self, first, *rest)

    monkeypatch.setattr(Work, "piece", noted)
    return made


@pytest.fixture
def run_of(make_example_run):
    return lambda rows=EXAMPLES, **more: make_example_run(rows, **{"on_bad_row": "skip", "cutoff_len": 24, **more})


def content(rows):
    return [{key: value.tolist() for key, value in row.items()} for row in rows]


@pytest.fixture
def expected(run_of, report, monkeypatch, tmp_path):
    """The rows and the report of one process with one large stretch, in a cache of its own."""
    with monkeypatch.context() as patched:
        patched.setenv("FTK_CACHE", str(tmp_path / "elsewhere"))
        run = run_of()
        rows = content(build_chat(run, "train"))
    facts = report(run)["train"]["datasets"]["inline-1"]
    assert facts["rows_read"] == NUM
    assert facts["dropped: malformed"] == facts["dropped: empty"] == 3
    return rows, facts


def shard_folder(tmp_path):
    (folder,) = (tmp_path / "cache" / "rows").iterdir()
    return folder


def check(run, expected, report):
    assert content(build_chat(run, "train")) == expected[0]
    assert report(run)["train"]["datasets"]["inline-1"] == expected[1]


# Together


@pytest.mark.parametrize("num", [1, 2, 3])
def test_any_number_of_workers_gives_the_rows_of_one_process(num, small, expected, run_of, report, tmp_path):
    check(run_of(preprocessing_num_workers=num), expected, report)
    assert len(list(shard_folder(tmp_path).glob("*.safetensors"))) == -(-NUM // SIZE)


@pytest.mark.parametrize("num", [SIZE * 3, SIZE * 3 - 1, SIZE * 3 + 1, 1])
def test_the_last_stretch_may_be_whole_short_or_one_row(num, small, run_of):
    rows = [talk(number) for number in range(num)]
    assert len(build_chat(run_of(rows), "train")) == num
    assert len(build_chat(run_of([*rows, talk(9)], max_samples=num), "train")) == num


def test_pairs_stay_pairs_across_workers(small, run_of):
    said = [[{"role": "assistant", "content": text}] for text in ("yes", "no")]
    rows = [{"messages": talk(n)["messages"][:1], "chosen": said[0], "rejected": said[1]} for n in range(11)]
    one, two = (content(build_pairs(run_of(rows, **more), "train"))
                for more in ({}, {"preprocessing_num_workers": 2, "overwrite_cache": True}))  # fmt: skip
    assert one == two
    assert len(one) == 11


SCRIPT = """
import json, os, sys, time
from pathlib import Path
import ftk, ftk_data, pluggy
from ftk.config import Setting
from ftk.plan import make_plan
from ftk.plugins import PluginRecord
from ftk.registry import Registry
from ftk.run import Run
from ftk.types import Tokens
from ftk_data import DataOptions, TemplateOptions, shards
from ftk_data.rows import build_chat
from ftk_data.work import Work
from transformers import PreTrainedTokenizerFast
import ftk_file

shards.SHARD = 4
made, piece = [], Work.piece
def noted(self, first, *rest):
    time.sleep(0.02)
    found = piece(self, first, *rest)
    if found[1].get("rows"):
        made.append(first)
    return found
Work.piece = noted

def convert(row, entry):
    return ftk.ChatExample(tuple(ftk.Message(**turn) for turn in row["messages"]))

folder = Path(sys.argv[1])
specs = (
    ftk.ModelLoader("none", target="none:none", default=True),
    ftk.Adapter("none", target="none:none", default=True),
    ftk.Trainer("sft", target="none:none", default=True, options=(DataOptions, TemplateOptions)),
    ftk.ChatTemplate("t", user="{content}|", generation=":", assistant="{content}<|im_end|>", options=TemplateOptions),
    ftk.DatasetConverter("plain", target="__main__:convert", default=True),
    *ftk_file.ftk_dataset_sources(),
)
registry = Registry((PluginRecord("made", "made", "1", "made", specs=specs),), pluggy.PluginManager("ftk"))
chosen = {"dataset": str(folder / "talks.jsonl"), "template": "t", "model_name_or_path": "none",
          "output_dir": str(folder / sys.argv[2])}
run = Run(make_plan({key: Setting(value, "the test") for key, value in chosen.items()}, registry))
run.tokens = Tokens(PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), eos_token="<|im_end|>"))
(folder / f"ready-{sys.argv[2]}").touch()
while len(list(folder.glob("ready-*"))) < int(sys.argv[3]):
    time.sleep(0.01)
rows = build_chat(run, "train")
print(json.dumps({"made": made, "rows": [row["labels"].tolist() for row in rows]}))
"""


def test_processes_that_are_started_apart_share_the_work(tokenizer, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "talks.jsonl").write_text("".join(json.dumps(talk(number)) + "\n" for number in range(NUM)))
    tokenizer.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    environment = {**os.environ, "FTK_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}

    def started(*names):
        return [
            subprocess.Popen([sys.executable, str(tmp_path / "script.py"), str(tmp_path), name, str(len(names))],
                             env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for name in names
        ]  # fmt: skip

    processes = started("a", "b")
    said = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    one, other = (json.loads(out) for out, _ in said)
    assert one["rows"] == other["rows"]
    assert len(one["rows"]) == NUM
    assert sorted(one["made"] + other["made"]) == list(range(0, NUM, SIZE))
    assert one["made"]
    assert other["made"]


# Killed


def test_after_a_kill_only_what_is_missing_is_made(small, expected, run_of, report, tmp_path, monkeypatch, pieces_made):
    run = run_of()
    slow, piece = multiprocessing.get_context("fork"), Work.piece
    with monkeypatch.context() as patched:
        patched.setattr(Work, "piece", lambda *given: (time.sleep(0.03), piece(*given))[1])
        process = slow.Process(target=build_chat, args=(run, "train"))
        process.start()
    while not all(list(tmp_path.glob(f"cache/rows/*/{name}")) for name in ("000003.safetensors", "*.claim")):
        assert process.is_alive()
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    there = sorted(shard_folder(tmp_path).glob("*.safetensors"))
    assert all(shards.read(file, keep=True) for file in there)
    assert list(shard_folder(tmp_path).glob("*.claim"))
    assert 4 <= len(there) < -(-NUM // SIZE)
    check(run_of(), expected, report)
    numbers = {int(file.stem) for file in there}
    assert pieces_made == [number * SIZE for number in range(-(-NUM // SIZE)) if number not in numbers]


def test_a_shard_that_another_process_gave_up_is_made_after_the_last(small, expected, run_of, report, monkeypatch):
    """Its maker dies while this process is at the end: what it then makes must not be taken for the end."""
    claim, refused = Shards.claim, []

    def late(self, number):
        if number < 2 and number not in refused:
            refused.append(number)
            return False
        return claim(self, number)

    monkeypatch.setattr(Shards, "claim", late)
    check(run_of(), expected, report)
    assert refused == [0, 1]


@pytest.mark.parametrize(
    ("host", "process", "age", "taken"),
    [
        (None, 2**22 + 1, 0, True),  # beyond the largest number of a process
        (None, None, 0, True),  # this process's number, but another beginning: it has been given again
        ("elsewhere", 1, 0, False),
        ("elsewhere", 1, 2 * shards.STALE, True),
    ],
)
def test_abandoned_claims_are_taken_over(host, process, age, taken, tmp_path):
    made = Shards(tmp_path)
    claim = tmp_path / "000000.claim"
    claim.write_text(json.dumps([host or socket.gethostname(), process or os.getpid(), "1"]))
    os.utime(claim, (time.time() - age,) * 2)
    assert made.claim(0) is taken
    if taken:
        assert json.loads(claim.read_text())[1] == os.getpid()


@pytest.mark.parametrize("text", ["", "[]", "7", '["x"', '["a", "b", "c", "d"]'])
def test_a_claim_that_cannot_be_read_is_its_writers_for_a_moment(text, tmp_path):
    made = Shards(tmp_path)
    claim = tmp_path / "000000.claim"
    claim.write_text(text)
    assert not made.claim(0)
    os.utime(claim, (time.time() - 10,) * 2)
    assert made.claim(0)


@pytest.mark.parametrize("links", [True, False])
def test_a_claim_is_there_whole_or_not_at_all(links, tmp_path, monkeypatch):
    """A kill between making the file and writing it would block a shard for seconds."""
    link = os.link

    def linked(aside, path):
        if not links:
            raise PermissionError("no hard links here")
        assert json.loads(Path(aside).read_text())[1] == os.getpid()
        link(aside, path)

    monkeypatch.setattr(os, "link", linked)
    assert Shards(tmp_path).claim(0)
    assert not Shards(tmp_path).claim(0)
    assert [path.name for path in tmp_path.iterdir()] == ["000000.claim"]


def test_a_claim_of_a_living_process_holds(tmp_path):
    assert Shards(tmp_path).claim(0)
    assert not Shards(tmp_path).claim(0)
    Shards(tmp_path).unclaim(0)
    assert Shards(tmp_path).claim(0)


# Damaged


DAMAGE = {
    "cut": lambda raw: raw[: len(raw) - 3],
    "half": lambda raw: raw[: len(raw) // 2],
    "empty": lambda raw: b"",
    "header": lambda raw: raw[:40] + b"\xff\xff" + raw[42:],
    "length": lambda raw: b"\xff" * 8 + raw[8:],
    "text": lambda raw: b"hello",
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_shard_is_made_again_alone(how, small, expected, run_of, report, tmp_path, pieces_made):
    build_chat(run_of(), "train")
    file = shard_folder(tmp_path) / "000002.safetensors"
    file.write_bytes(DAMAGE[how](file.read_bytes()))
    pieces_made.clear()
    check(run_of(), expected, report)
    assert pieces_made == [2 * SIZE]
    pieces_made.clear()
    check(run_of(), expected, report)
    assert pieces_made == []


@pytest.mark.parametrize("text", ["", "{", "{}", "7", "null", '{"num_shards": "x"}'])
def test_a_damaged_end_is_found_again(text, small, expected, run_of, report, tmp_path, pieces_made):
    build_chat(run_of(), "train")
    (shard_folder(tmp_path) / "end.json").write_text(text)
    pieces_made.clear()
    check(run_of(), expected, report)
    assert len(pieces_made) <= 1  # the one beyond the last, of which there is none
    assert json.loads((shard_folder(tmp_path) / "end.json").read_text()) == {"num_shards": -(-NUM // SIZE)}


def test_a_missing_shard_is_made_again(small, expected, run_of, report, tmp_path, pieces_made):
    build_chat(run_of(), "train")
    (shard_folder(tmp_path) / "000000.safetensors").unlink()
    pieces_made.clear()
    check(run_of(), expected, report)
    assert pieces_made == [0]


# Refused


@pytest.mark.parametrize("num", [1, 2])
def test_a_cache_that_cannot_be_written_costs_a_warning(
    num, small, expected, run_of, report, tmp_path, monkeypatch, caplog
):
    (tmp_path / "file").write_text("in the way")
    run = run_of(preprocessing_num_workers=num)
    monkeypatch.setenv("FTK_CACHE", str(tmp_path / "file" / "cache"))
    check(run, expected, report)
    assert sum("tokenised rows are not kept: " in record.message for record in caplog.records) == 1


@pytest.mark.parametrize("number", [0, 3])
def test_a_disk_that_gets_full_costs_a_warning(number, small, expected, run_of, report, monkeypatch, caplog):
    written, put = [], shards.put

    def full(path, content):
        written.append(path)
        if len(written) > number:
            raise OSError(errno.ENOSPC, "No space left on device")
        put(path, content)

    monkeypatch.setattr(shards, "put", full)
    check(run_of(), expected, report)
    assert sum("No space left on device" in record.message for record in caplog.records) == 1


def test_a_damaged_shard_on_a_disk_that_cannot_be_written_is_made_in_memory(
    small, expected, run_of, report, tmp_path, monkeypatch, caplog
):
    build_chat(run_of(), "train")
    file = shard_folder(tmp_path) / "000002.safetensors"
    file.write_bytes(b"hello")

    def refuse(self, *_, **__):
        raise OSError(errno.EROFS, "Read-only file system", str(self))

    for name in ("write_bytes", "replace", "rename", "unlink", "mkdir"):
        monkeypatch.setattr(Path, name, refuse)
    run = run_of()
    monkeypatch.setattr("ftk_data.report.publish", lambda *_: None)
    assert content(build_chat(run, "train")) == expected[0]
    assert any("Read-only file system" in record.message for record in caplog.records)


# Errors, and starting anew


def test_an_error_in_a_worker_is_told_once_by_the_first_process(small, run_of, capfd):
    rows = [*map(talk, range(SIZE * 4)), {"bad": "is no example"}, *map(talk, range(SIZE * 4))]
    with pytest.raises(ftk.DataError, match=r"rows\.jsonl:17: is no example\. Mend the row") as raised:
        build_chat(run_of(rows, preprocessing_num_workers=3, on_bad_row="error"), "train")
    assert "\n" not in str(raised.value)
    told = capfd.readouterr()
    assert told.out == told.err == ""
    assert not multiprocessing.active_children()


def test_a_worker_that_is_killed_is_not_missed(small, expected, run_of, report, monkeypatch):
    first, piece = os.getpid(), Work.piece

    def killed(*given):
        if os.getpid() != first:
            os.kill(os.getpid(), signal.SIGKILL)
        return piece(*given)

    monkeypatch.setattr(Work, "piece", killed)
    check(run_of(preprocessing_num_workers=2), expected, report)


def test_overwrite_cache_makes_every_shard_again(small, expected, run_of, report, pieces_made):
    build_chat(run_of(), "train")
    first = list(pieces_made)
    pieces_made.clear()
    check(run_of(overwrite_cache=True), expected, report)
    assert pieces_made == first
    pieces_made.clear()
    check(run_of(), expected, report)
    assert pieces_made == []


def test_overwriting_what_cannot_be_removed_is_one_line(small, run_of, monkeypatch):
    build_chat(run_of(), "train")

    def refuse(self, *_, **__):
        raise OSError(errno.EROFS, "Read-only file system", str(self))

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(ftk.DataError, match=r"overwrite_cache: .* cannot be removed: Read-only file system\. Set FTK"):
        build_chat(run_of(overwrite_cache=True), "train")


def resident(path):
    """Bytes of a mapped file that this process holds in memory, as Linux tells them."""
    text, found = Path("/proc/self/smaps").read_text(), 0
    for block in text.split("VmFlags")[:-1]:
        if str(path) in block:
            found += int(block.split("Rss:")[1].split()[0]) * 1024
    return found


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="reads Linux's own account of memory")
def test_rows_on_disk_are_not_held_in_memory_once_they_were_read(tmp_path, monkeypatch):
    num, size = 4096, 2048
    ids = np.arange(num * size, dtype=np.int32)
    piece = store.Piece(
        ids, ids % 3 == 0, np.arange(num + 1) * size, np.arange(num, dtype=np.int64), np.zeros(num, np.int8)
    )
    path = tmp_path / "0.safetensors"
    shards.put(path, shards.packed(piece, {}))
    kept = store.Store([shards.read(path)[0]])
    trained = kept.trained_N
    assert resident(path) < 8e6, "the marks of all tokens were read, and given back"
    monkeypatch.setattr(store, "HELD", 2**40)
    rows = [kept.row(number) for number in range(num)]
    assert resident(path) > 32e6
    monkeypatch.setattr(store, "HELD", 2**20)
    assert all(np.array_equal(kept.row(number).ids_T, rows[number].ids_T) for number in range(num))
    assert resident(path) < 8e6
    assert trained.tolist() == [int((row.labels_T != -100).sum()) for row in rows]
