"""Every stage that trains: with every way of learning, padded and packed; stopped after two steps; in any batches.

References: the same run in another way. Stages and their losses come from the installed plugins, so a new one is held
to this without a line here; one that needs more keys than others has them in ``KEYS``.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from ftk.registry import Registry
from ftk.run import Run
from ftk.testing.runs import plan_in, run_in

safetensors = pytest.importorskip("safetensors.torch", reason="results are compared by their weights")
pytest.importorskip("ftk_training", reason="it has what stages that train share")

REGISTRY = Registry.discover()
WORDS = ("one", "two", "three", "four")
TURNS = [(f"Say {WORDS[n % 4]} {1 + n % 3} times.", " ".join([WORDS[n % 4]] * (1 + n % 3))) for n in range(16)]
"""Questions and answers of uneven lengths."""
ROWS: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "text": ([{"text": f"{ask} {answer}."} for ask, answer in TURNS], {"columns": {"prompt": "text"}}),
    "chat": ([{"instruction": ask, "output": answer} for ask, answer in TURNS], {}),
    "pairs": (
        [
            {"instruction": ask, "chosen": answer, "rejected": "no " * (n % 4 + 1)}
            for n, (ask, answer) in enumerate(TURNS)
        ],
        {"ranking": True, "columns": {"prompt": "instruction", "chosen": "chosen", "rejected": "rejected"}},
    ),
    "feedback": (
        [{"instruction": ask, "output": answer, "liked": n % 3 > 0} for n, (ask, answer) in enumerate(TURNS)],
        {"columns": {"prompt": "instruction", "response": "output", "kto_tag": "liked"}},
    ),
    "prompts": ([{"instruction": ask, "output": answer} for ask, answer in TURNS], {}),
}
"""What a trainer says that it eats → rows, and what their entry says of them."""

KEYS: dict[str, dict[str, Any]] = {
    "grpo": {"reward_funcs": "judge.py:judge", "num_generations": 2, "max_completion_length": 4},
    "ppo": {"reward_funcs": "judge.py:judge", "max_completion_length": 4},
}
"""Stage → keys without which it does nothing here. An installed stage that is missing needs none."""
JUDGE = "def judge(tokens):\n    return [sum(one) % 7 for one in tokens]\n"
"""A reward that differs from answer to answer."""
SAMPLED = {"grpo", "ppo"}
"""Stages whose rows are answers of the model: another split of a batch draws others, and their own tests have that."""

TINY = "ftk://random/llama?hidden_size=32&intermediate_size=64"
METHODS: dict[str, dict[str, Any]] = {
    "full": {"finetuning_type": "full"},
    "lora": {"finetuning_type": "lora", "lora_rank": 4},
    "freeze": {"finetuning_type": "freeze", "freeze_trainable_layers": 1},
}
LAYOUTS: dict[str, dict[str, Any]] = {"padded": {"packing": False}, "packed": {"packing": True}}


class Case(NamedTuple):
    stage: str
    name: str
    keys: dict[str, Any]


def cases() -> list[Any]:
    """Each stage that trains, and each loss of a stage that has several."""
    found = []
    for name, spec in REGISTRY.specs("trainer").items():
        if any(options.__name__ == "TrainingOptions" for options in spec.option_classes):
            found.append(Case(name, name, KEYS.get(name, {})))
    for kind, selector in (("sft_loss", None), ("preference_loss", "pref_loss")):
        stage = (REGISTRY.kinds[kind].within or "").removeprefix("trainer:") if kind in REGISTRY.kinds else ""
        for name, spec in REGISTRY.specs(kind).items() if stage else ():
            found.append(Case(stage, name, {selector: name} if selector else {spec.switch: True}))
    return [pytest.param(case, id=case.name) for case in found]


def with_methods() -> list[Any]:
    """Stages with every way of learning, their other losses with LoRA alone."""
    return [
        pytest.param(one.values[0], method, id=f"{one.id}-{method}", marks=pytest.mark.needs(f"ftk-{method}"))
        for one in cases()
        for method in METHODS
        if method == "lora" or one.values[0].stage == one.values[0].name
    ]


def plain_cases() -> list[Any]:
    """Stages alone, for what their losses have in common."""
    return [one for one in cases() if one.values[0].stage == one.values[0].name]


@pytest.fixture(autouse=True)
def one_thread():
    """Sums over another number of threads round differently."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def settings(folder: Path, case: Case, **more: Any) -> dict[str, Any]:
    rows, entry = ROWS[REGISTRY.specs("trainer")[case.stage].examples]
    path = folder / "rows.json"
    path.write_text(json.dumps(rows))
    (folder / "judge.py").write_text(JUDGE)
    keys = {key: f"{folder}/{value}" if key == "reward_funcs" else value for key, value in case.keys.items()}
    given = {
        "stage": case.stage, "model_name_or_path": TINY, "template": "chatml", "disable_shuffling": True,
        "dataset": [{"file_name": str(path), **entry}], "max_steps": 3, **METHODS["full"], **LAYOUTS["padded"], **keys,
        **more,
    }  # fmt: skip
    if "template" not in REGISTRY.specs("trainer")[case.stage].uses:
        given.pop("template")
    return given


def log_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "trainer_log.jsonl").read_text().splitlines()]


def steps_of(folder: Path) -> list[tuple[float, float]]:
    return [(line["loss"], line["grad_norm"]) for line in log_of(folder) if "loss" in line]


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= safetensors.load_file(path)
    return found


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("case", "method"), with_methods())
def test_a_stage_trains_and_leaves_what_it_learnt(case, method, layout, tmp_path):
    given = settings(tmp_path, case, **METHODS[method], **LAYOUTS[layout], save_strategy="steps", save_steps=1)
    if layout == "packed":
        rows = Run(plan_in(tmp_path, **given)).rows("train")
        if not getattr(rows, "packed", False) and case.stage != "pt":
            pytest.skip(f"rows of {case.stage} are not packed")
    folder = run_in(tmp_path, **given).folder
    steps = steps_of(folder)
    assert len(steps) == 3
    assert all(abs(loss) < 100 and 0 <= norm < 1e4 for loss, norm in steps)
    assert any(norm > 0 for _, norm in steps)
    first, last = weights_of(folder / "checkpoint-1"), weights_of(folder)
    assert any((first[name] != weight).any() for name, weight in last.items() if name in first)
    assert all(weight.isfinite().all() for weight in last.values())


@pytest.mark.parametrize("case", cases())
def test_a_run_that_was_stopped_after_two_steps_goes_on_as_if_it_had_not_been(case, tmp_path):
    """Numbers of the log, but for times, and weights, to the last bit."""
    given = settings(tmp_path, case, model_name_or_path=f"{TINY}&attention_dropout=0.1", max_steps=5)
    given |= {"save_strategy": "steps", "save_steps": 2, "disable_shuffling": False, "per_device_train_batch_size": 4}
    folder = run_in(tmp_path, **given).folder
    wanted, weights = log_of(folder), weights_of(folder)
    for step in (4, 5):
        shutil.rmtree(folder / f"checkpoint-{step}")
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**record, "status": "running"}))
    again = run_in(tmp_path, **given).folder
    for ours, theirs in zip(log_of(again), wanted, strict=True):
        for name in theirs.keys() - {"seconds", "tokens_per_second"}:
            if not name.startswith("time/"):
                assert ours[name] == theirs[name], name
    for name, weight in weights_of(again).items():
        assert torch.equal(weight, weights[name]), name


@pytest.mark.parametrize("case", cases())
def test_a_batch_of_eight_is_four_times_two_and_eight_times_one(case, tmp_path):
    """In losses, gradients and weights, with rows of uneven lengths: the loss is a mean over what is counted."""
    if case.stage in SAMPLED:
        pytest.skip(f"{case.stage}: another split of a batch samples other answers; its own tests compare splits")
    found = []
    for size, accumulated in ((8, 1), (4, 2), (2, 4), (1, 8)):
        more = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulated, "max_steps": 2}
        out = str(tmp_path / f"{size}x{accumulated}")
        folder = run_in(tmp_path, **settings(tmp_path, case, output_dir=out, **more)).folder
        found.append((steps_of(folder), weights_of(folder)))
    (wanted, weights), *others = found
    for steps, theirs in others:
        for ours, reference in zip(steps, wanted, strict=True):
            assert ours == pytest.approx(reference, rel=2e-4, abs=1e-6)
        for name, weight in theirs.items():
            torch.testing.assert_close(weight, weights[name], rtol=1e-3, atol=2e-5)


TWO_PROCESSES = """
import json, sys
from pathlib import Path
from ftk.run import Run
from ftk.testing.runs import plan_in
import torch
torch.set_num_threads(1)
for given in json.loads(Path(sys.argv[1]).read_text()):
    run = Run(plan_in(Path(given["output_dir"]).parent, **given))
    run.output_dir.mkdir(exist_ok=True)
    run.plan.one("trainer").load()(run)
"""


def test_two_processes_train_each_stage_as_one_with_twice_the_batch(tmp_path):
    """Each takes every other batch, and their lengths differ; gloo, both stages' runs one after the other."""
    stages = [one.values[0] for one in plain_cases() if one.values[0].stage not in SAMPLED]
    given, wanted = [], {}
    for case in stages:
        folder = tmp_path / case.name
        folder.mkdir()
        one = settings(folder, case, max_steps=2, gradient_accumulation_steps=2, output_dir=str(folder / "one"))
        wanted[case.name] = steps_of(run_in(folder, **{**one, "per_device_train_batch_size": 4}).folder)
        given.append({**one, "output_dir": str(folder / "two"), "ddp_backend": "gloo"})
    (tmp_path / "given.json").write_text(json.dumps(given))
    (tmp_path / "two.py").write_text(TWO_PROCESSES)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node=2",
        "--standalone",
        "two.py",
        "given.json",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    for case in stages:
        for ours, reference in zip(steps_of(tmp_path / case.name / "two"), wanted[case.name], strict=True):
            assert ours == pytest.approx(reference, rel=5e-4), case.name
