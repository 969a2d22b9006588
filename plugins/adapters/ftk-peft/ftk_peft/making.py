"""Loading, merging and making adapters with peft, of any type that peft knows."""

from __future__ import annotations

import json
import logging
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftk import ModelError
from ftk_training.learning import settle, value
from ftk_training.quick_imports import quick_imports

from ftk_peft import PeftOptions
from ftk_peft.targets import ties

with quick_imports():
    from peft import PeftConfig, PeftModel, PeftType, get_peft_model

if TYPE_CHECKING:
    from ftk.run import Run

log = logging.getLogger("ftk.peft")

UNFIT = (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, NotImplementedError)
"""What peft raises for files and models that do not go together."""


def load(model: Any, path: str, run: Run, trainable: bool = False) -> Any:
    """The model with a saved adapter beside it. Raises ModelError when it cannot be loaded or does not fit."""
    hub: dict[str, Any] = {"token": value(run, "hf_hub_token"), "cache_dir": value(run, "cache_dir")}
    if inner := run.options(PeftOptions).adapter_folder:
        hub["subfolder"] = inner
    try:
        with without_bitsandbytes(model):
            return PeftModel.from_pretrained(
                model,
                path,
                is_trainable=trainable,
                autocast_adapter_dtype=not value(run, "pure_bf16"),
                **({} if Path(path).is_dir() else hub),
            )
    except UNFIT as cause:
        text = " ".join(str(cause).split())
        if "size mismatch" in text or "not found in the base model" in text:
            text = f"does not fit {run.value('model_name_or_path')}: {text}"
        raise ModelError(f"{run.plan.where('adapter_name_or_path')}: {path}: {text[:300]}") from cause


def merged(model: Any, path: str, run: Run) -> Any:
    """The model with a saved adapter added to its weights. Raises ModelError when that cannot be, or is not finite."""
    return merge(load(model, path, run), path, run)


def merge(model: Any, path: str, run: Run) -> Any:
    """The model beneath an adapter that stands beside it, with the adapter in its weights. As :func:`merged`."""
    where = f"{run.plan.where('adapter_name_or_path')}: {path}"
    targets = getattr(model.active_peft_config, "target_modules", None)
    if ties(model.get_base_model(), () if isinstance(targets, str) or not targets else targets):
        raise ModelError(
            f"{where}: has terms beside embeddings or an output layer that share a weight here, which would get both"
        )
    try:
        with without_bitsandbytes(model):
            return model.merge_and_unload(safe_merge=True)
    except (ValueError, AttributeError, NotImplementedError) as cause:
        raise ModelError(f"{where}: {type_of(model)} cannot be merged: {cause}") from cause


def type_of(model: Any) -> str:
    """peft's name of the adapter that a model has: ``LORA``, ``OFT`` ..."""
    return str(getattr(model.active_peft_config.peft_type, "value", model.active_peft_config.peft_type))


def continued(model: Any, path: str, run: Run) -> Any:
    """The model with a saved adapter that learns on, in the shape that it has.

    Raises ModelError when the YAML names another of peft's types than the adapter has.
    """
    model = load(model, path, run, trainable=True)
    wanted = (run.value("finetuning_type") or "").upper()
    if wanted in PeftType.__members__ and wanted != type_of(model):
        raise ModelError(
            f"{run.plan.where('finetuning_type')}: {path} is of type {type_of(model).lower()} and cannot go on as "
            "another. Take finetuning_type out, or create_new_adapter: true merges it and makes a new one"
        )
    settle(model, run, run.plan.where("adapter_name_or_path"))
    return model


def tell_unused(config: Any, run: Run, fields: dict[str, str]) -> None:
    """Warn of keys that the YAML gives and that an adapter which goes on has otherwise. ``fields``: key → peft's."""
    for key, field in fields.items():
        has = getattr(config, field, None)
        if key in run.plan.given and run.value(key) != has:
            where, path = run.plan.where(key), run.value("adapter_name_or_path")[-1]
            rest = "create_new_adapter: true makes a new one"
            log.warning("%s has no effect: %s goes on as it is, with %s. %s", where, path, has, rest)


def new(model: Any, config: PeftConfig, run: Run) -> Any:
    """The model with a new adapter. Raises ModelError when peft refuses to put it there."""
    try:
        with without_bitsandbytes(model):
            made = get_peft_model(model, config, autocast_adapter_dtype=not value(run, "pure_bf16"))
    except UNFIT as cause:
        adapter = run.plan.one("adapter")
        name = adapter.id if adapter else "adapter"
        raise ModelError(f"{run.plan.config}: {name}: {' '.join(str(cause).split())[:300]}") from cause
    settle(made, run, run.plan.where("additional_target"))
    return made


def read_config(folder: Path) -> dict[str, Any]:
    """What an adapter says of itself."""
    content: dict[str, Any] = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    return content


def write_config(folder: Path, content: dict[str, Any]) -> None:
    """Change what an adapter says of itself."""
    text = json.dumps(content, indent=2, sort_keys=True)
    (folder / "adapter_config.json").write_text(text, encoding="utf-8")


def without_bitsandbytes(model: Any) -> AbstractContextManager[None]:
    """peft imports bitsandbytes (seconds) for every layer that it looks at; only a quantised model needs it to."""
    return quick_imports() if getattr(model, "quantization_method", None) is None else nullcontext()
