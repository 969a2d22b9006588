"""Every adapter with every quantiser on a dense, a mixture-of-experts and a seeing model.

It trains three steps, is saved and is loaded again to the same logits (reference: the trained model in memory), or the
plan refuses it with the reason that ``ftk caps`` shows. Pairs come from the specs, so a new plugin is in the matrix
without a line here. Of a quantiser's bits one is taken; its own tests have the rest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ftk import FtkError, ModelError
from ftk.opening import open_run
from ftk.registry import Registry
from ftk.run import Run
from ftk.testing.runs import plan_in, run_in

pairs = pytest.importorskip("ftk_caps.pairs", reason="the matrix is read off what ftk-caps shows")
PIL_Image = pytest.importorskip("PIL.Image", reason="one of the models sees")

REGISTRY = Registry.discover()
MODELS = {"dense": "ftk://random/llama", "experts": "ftk://random/qwen3_moe", "seeing": "ftk://random/llava"}
NUMBERS = {"loraplus_lr_ratio": 16.0}
"""What a switch that is no yes or no is set to."""


def quantizers() -> Iterator[Any]:
    """None, then each quantiser with 4 bits, or with the most that it has."""
    best: dict[str, Any] = {}
    for one in pairs.choices(REGISTRY, "quantizer"):
        name = one.specs[0].name if one.specs else "none"
        if name not in best or 4 in one.values.values():
            best[name] = one
    yield from best.values()


CELLS = [
    pytest.param(model, down, across, id=f"{model}-{down.label}-{across.label}".replace(" ", ""))
    for model in MODELS
    for down in pairs.choices(REGISTRY, "adapter")
    for across in quantizers()
]


@pytest.mark.parametrize(("model", "down", "across"), CELLS)
def test_a_pair_trains_and_is_loaded_again_or_is_refused_with_the_reason(model, down, across, tmp_path, trained):
    said = pairs.verdict(REGISTRY, down, across)
    values = {key: NUMBERS.get(key, value) for key, value in {**down.values, **across.values}.items()}
    settings = {"model_name_or_path": MODELS[model], "dataset": rows(tmp_path, model), "max_steps": 3, **values}
    if said.lacks:
        pytest.skip(f"{across.label} needs {', '.join(said.lacks)}, which is not installed")
    if across.label.endswith(" files"):
        pytest.skip(f"{across.label}: models that are stored that way are in the plugin's own tests")
    if said.refusals:
        with pytest.raises(FtkError) as error:
            plan_in(tmp_path, **settings)
        assert all(reason in str(error.value) for reason in said.refusals)
        return
    if said.gpu and not torch.accelerator.is_available():
        pytest.skip(f"{across.label} needs a GPU")
    finished = finish(tmp_path, **settings)
    run = open_run("chat", finished.folder, [])
    again, (learnt,) = run.model(trainable=False), trained
    torch.testing.assert_close(logits(again, run), logits(learnt, run), atol=2e-3, rtol=2e-3)


def finish(folder: Path, **settings: Any) -> Any:
    """The run. What cannot do experts that share a parameter says so and which layers to name; then those are named."""
    try:
        return run_in(folder, learning_rate=1e-3, **settings)
    except ModelError as error:
        if not re.search(r"experts that share a parameter cannot .* lora_target", str(error)):
            raise
    return run_in(folder, learning_rate=1e-3, lora_target="q_proj,k_proj,v_proj,o_proj", **settings)


def rows(folder: Path, model: str) -> Any:
    """Four rows, for the model that sees with a picture each."""
    path = folder / "matrix.json"
    picture = folder / "picture.png"
    PIL_Image.new("RGB", (40, 30), (200, 30, 90)).save(picture)
    seen = {"images": [str(picture)]} if model == "seeing" else {}
    mark = "<image>" if seen else ""
    path.write_text(
        json.dumps([{"instruction": f"{mark}What is {n}?", "output": f"A number, {n}.", **seen} for n in range(4)])
    )
    entry = {"file_name": str(path), "columns": {"prompt": "instruction", "response": "output", "images": "images"}}
    return [entry] if seen else str(path)


@pytest.fixture
def trained(monkeypatch):
    """The models that the test's runs train, as they are in memory."""
    made, make = [], Run._make_model

    def making(run, trainable):
        model = make(run, trainable)
        made.extend([model] if trainable else [])
        return model

    monkeypatch.setattr(Run, "_make_model", making)
    return made


@torch.no_grad()
def logits(model, run):
    ids = run.tokenizer("What does it learn?", return_tensors="pt", add_special_tokens=False)["input_ids"]
    model.eval()
    return model(input_ids=ids, use_cache=False).logits.float()
