"""The trained model with its adapters in its weights, and what it said before they were put there."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from ftk import Command
from ftk.plan import make_plan
from ftk.run import Run

from ftk_export import ExportOptions

log = logging.getLogger("ftk.export")

LOADING = Command("export-base", uses=("model_loader", "quantizer", "model_patch", "adapter"))
ADAPTER_KEYS = ("adapter_name_or_path", "adapter_folder", "create_new_adapter")
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


def merged(run: Run, look: Callable[[Any], None]) -> Any:
    """The model of a run with plain weights and every adapter in them. ``look(model)`` sees it as it was trained.

    A quantised base becomes plain, which the loader says aloud. Raises FtkError.
    """
    model = base_run(run).model(trainable=False)
    paths = run.value("adapter_name_or_path")
    if not paths:
        look(model)
        return run.dequantized(model)
    model = run.dequantized(model)
    from ftk_peft.applying import find_adapter
    from ftk_peft.making import load, merge

    *beneath, last = [find_adapter(path, run) for path in paths]
    for path in beneath:
        model = merge(load(model, path, run), path, run)
    model = load(model, last, run)
    look(model)
    model = merge(model, last, run)
    log.info("merged: %s", ", ".join(map(str, paths)))
    return model


def base_run(run: Run) -> Run:
    """The same run without its adapters, with the quantizer that the run of the command leaves out.

    Apart from each other they exclude nothing: the base becomes plain before several adapters are merged into it.
    """
    kept = {key: setting for key, setting in run.plan.given.items() if key not in ADAPTER_KEYS}
    if run.options(ExportOptions).export_device == "cpu" and "device_map" in run.plan.registry.options:
        where = run.plan.where("export_device")
        kept["device_map"] = replace(run.plan.given["model_name_or_path"], value="cpu", where=where)
    return Run(make_plan(kept, run.plan.registry, config=run.plan.config, command=LOADING))


def as_asked(model: Any, run: Run) -> Any:
    """The model in the type of ``export_dtype``."""
    wanted = run.options(ExportOptions).export_dtype
    return model if wanted == "auto" else model.to(DTYPES[wanted])
