"""What every adapter has to show in a real run of three steps, on any tiny model.

A test that combines its plugin with one that is not installed is skipped, and says which.
"""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ftk import FtkError
from ftk.opening import open_run
from ftk.run import Run, execute
from ftk.testing.runs import plan_in
from safetensors.torch import load_file

IDS_BT = torch.tensor([[5, 6, 7, 8, 9, 10]])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    try:
        return (yield)
    except FtkError as error:
        missing = re.search(r"belongs to (ftk-[\w-]+), which is not installed", str(error))
        if missing is None or missing[1] in item.path.parts:
            raise
        pytest.skip(str(error))


def logits(model):
    with torch.no_grad():
        return model.eval()(IDS_BT, use_cache=False).logits


def train(monkeypatch, folder, name, **settings):
    """A finished run: its trained model, what it had learnt, and its directory."""
    runs = []

    class Kept(Run):
        def __init__(self, plan):
            super().__init__(plan)
            runs.append(self)

    defaults = {"max_steps": 3, "save_strategy": "steps", "save_steps": 1, "learning_rate": 1e-2}
    plan = plan_in(folder, **{**defaults, "output_dir": str(folder / name), **settings})
    with monkeypatch.context() as patch:
        patch.setattr("ftk.run.Run", Kept)
        execute(plan)
    model = runs[0].model(trainable=True)
    return SimpleNamespace(run=runs[0], model=model, logits=logits(model), folder=folder / name)


def weights(folder):
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= {f"{path.name}:{name}": value for name, value in load_file(path).items()}
    assert found, f"{folder} holds no weights"
    return found


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(value, b[name]) for name, value in a.items())


@pytest.fixture
def prove(tmp_path, monkeypatch):
    """``prove(**settings)`` trains three steps. It fails unless something was learnt, result and last checkpoint give
    the same logits when they are loaded again, and a run that goes on from the second step ends with the same bits.
    """

    def go(atol=1e-4, **settings):
        whole = train(monkeypatch, tmp_path, "whole", **settings)
        untrained = Run(plan_in(tmp_path, **settings)).model(trainable=True)
        assert (logits(untrained) - whole.logits).abs().max() > 1e-3, "nothing was learnt"
        places = [[]]
        if whole.run.plan.one("adapter").saves == "adapter":
            record = json.loads((whole.folder / "run.json").read_text())
            adapter = ",".join([*record["beneath"], str(whole.folder / "checkpoint-3")])
            said = json.loads((whole.folder / "checkpoint-3" / "adapter_config.json").read_text())
            beneath = said["base_model_name_or_path"]
            beneath = beneath if Path(beneath).parent == whole.folder else settings["model_name_or_path"]
            places.append(["--adapter_name_or_path", adapter, "--model_name_or_path", beneath])
        for words in places:
            model = open_run("chat", str(whole.folder), words).model(trainable=False)
            torch.testing.assert_close(logits(model), whole.logits, rtol=1e-3, atol=atol)
        middle = {"resume_from_checkpoint": str(whole.folder / "checkpoint-2")}
        resumed = train(monkeypatch, tmp_path, "resumed", **{**settings, **middle})
        assert same(weights(resumed.folder), weights(whole.folder)), "a resumed run ends elsewhere"
        return whole

    return go
