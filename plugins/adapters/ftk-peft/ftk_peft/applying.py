"""Which adapters are merged, continued or made. What needs peft is imported when there is one to load or to make."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftk import ModelError

from ftk_peft import BASE, PeftOptions

if TYPE_CHECKING:
    from ftk.run import Run

log = logging.getLogger("ftk.peft")

ConfigOf = Callable[[Any, "Run"], Any]
"""``config_of(model, run) -> peft config`` of a new adapter."""


def apply(model: Any, run: Run, trainable: bool, config_of: ConfigOf) -> Any:
    """The model with its adapters. A saved adapter is what it says itself, whatever ``finetuning_type`` says.

    To train: all adapters of ``adapter_name_or_path`` but the last are merged and the last is trained on; with
    ``create_new_adapter``, or without any, a new one is made. What learns is float32 unless ``pure_bf16``.
    To answer: all are merged; on a quantised base, where merging would round, the only one stays beside it.
    Raises ModelError when an adapter cannot be loaded, or when a module that is to learn is not there.
    """
    paths = [find_adapter(path, run) for path in run.value("adapter_name_or_path")]
    if not paths and not trainable:
        return model
    from ftk_peft.making import continued, load, merged, new

    quantised = getattr(model, "quantization_method", None) is not None
    keep_last = bool(paths) and (quantised if not trainable else not run.options(PeftOptions).create_new_adapter)
    beneath = paths[:-1] if keep_last else paths
    if quantised and beneath:
        raise ModelError(
            f"{run.plan.where('adapter_name_or_path')}: an adapter cannot be merged into a quantised model. "
            "Give one adapter, or merge them into the base model before you quantise it"
        )
    for path in beneath:
        model = merged(model, path, run)
    if not trainable:
        return load(model, paths[-1], run) if keep_last else model
    for path in beneath:
        log.info("%s: merged into the base model", path)
    run.record(beneath=beneath)
    return continued(model, paths[-1], run) if keep_last else new(model, config_of(model, run), run)


def find_adapter(path: str, run: Run, key: str = "adapter_name_or_path") -> str:
    """The folder of an adapter that ``key`` names, or its name on the hub. Raises ModelError for a folder that is none.

    ``adapter_folder`` is looked for in it; an adapter that lies in the folder itself is taken, too, because a run's own
    result does not share the layout of what it began with.
    """
    folder, inner = Path(path).expanduser(), run.value("adapter_folder")
    where = run.plan.where(key)
    if folder.is_dir():
        if inner and (folder / inner).is_dir():
            folder = folder / inner
        if not (folder / "adapter_config.json").is_file():
            whole = (folder / "config.json").is_file()
            kind = "a whole model; give it as model_name_or_path" if whole else "no adapter"
            raise ModelError(f"{where}: {folder} has no adapter_config.json, so it is {kind}{_inside(folder)}")
        if not any((folder / f"adapter_model.{kind}").is_file() for kind in ("safetensors", "bin")):
            raise ModelError(f"{where}: {folder} has no adapter_model.safetensors")
        _check_base(folder, run, where)
        return str(folder)
    if path.startswith((".", "/", "~")) or path.count("/") > 1:
        raise ModelError(f"{where}: {path}: there is no such folder")
    return path


def _check_base(folder: Path, run: Run, where: str) -> None:
    """Refuse an adapter that learnt on a changed model, beside which it was saved, on any other; and the reverse."""
    said = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8")).get("base_model_name_or_path")
    name = str(run.value("model_name_or_path"))
    if said and (Path(said).name == BASE) != (Path(name).name == BASE):
        raise ModelError(f"{where}: {folder} learnt on {said}, not on {name}. Give that as model_name_or_path")


def _inside(folder: Path) -> str:
    found = sorted(path.parent.name for path in folder.glob("*/adapter_config.json"))
    return f". adapter_folder can be {', '.join(found)}" if found else ""
