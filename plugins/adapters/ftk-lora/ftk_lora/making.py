"""Loading, merging and making adapters with peft."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from ftk import ModelError
from ftk.errors import did_you_mean
from ftk_training.quick_imports import quick_imports

from ftk_lora import LoraOptions
from ftk_lora.targets import find_targets, last_names, matches

with quick_imports():
    from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model

if TYPE_CHECKING:
    from ftk.run import Run

log = logging.getLogger("ftk.lora")


def load(model: Any, path: str, run: Run, trainable: bool = False) -> Any:
    """The model with a saved adapter beside it. Raises ModelError when it cannot be loaded or does not fit."""
    hub = {"token": _value(run, "hf_hub_token"), "cache_dir": _value(run, "cache_dir")}
    try:
        with _without_bitsandbytes(model):
            return PeftModel.from_pretrained(
                model,
                path,
                is_trainable=trainable,
                autocast_adapter_dtype=not _value(run, "pure_bf16"),
                **({} if Path(path).is_dir() else hub),
            )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as cause:
        text = " ".join(str(cause).split())
        if "size mismatch" in text or "not found in the base model" in text:
            text = f"does not fit {run.value('model_name_or_path')}: {text}"
        raise ModelError(f"{run.plan.where('adapter_name_or_path')}: {path}: {text[:300]}") from cause


def merged(model: Any, path: str, run: Run) -> Any:
    """The model with a saved adapter added to its weights. Raises ModelError when the sum is not finite."""
    model = load(model, path, run)
    try:
        with _without_bitsandbytes(model):
            return model.merge_and_unload(safe_merge=True)
    except ValueError as cause:
        raise ModelError(f"{run.plan.where('adapter_name_or_path')}: {path}: cannot be merged: {cause}") from cause


def continued(model: Any, path: str, run: Run) -> Any:
    """The model with a saved adapter that learns on, in the shape that it has; says so where the YAML differs."""
    model = load(model, path, run, trainable=True)
    _tell_unused(model.active_peft_config, path, run)
    return _ready(model, run)


def new(model: Any, run: Run) -> Any:
    """The model with a new adapter, which changes nothing yet: B is zero.

    Raises ModelError when a module that is to learn is not there, or cannot have a low-rank term.
    """
    options = run.options(LoraOptions)
    targets = find_targets(model, options.lora_target, run.plan.where("lora_target"))
    if targets.parameters and options.lora_dropout:
        raise ModelError(
            f"{run.plan.where('lora_dropout')}: experts that share a parameter cannot have dropout. Set it to 0, or "
            f"name the layers without {', '.join(targets.parameters)} in lora_target"
        )
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=options.lora_rank,
        lora_alpha=2 * options.lora_rank if options.lora_alpha is None else options.lora_alpha,
        lora_dropout=options.lora_dropout,
        use_rslora=options.use_rslora,
        target_modules=targets.modules,
        exclude_modules=targets.excluded,
        target_parameters=targets.parameters or None,
        modules_to_save=_additional(model, run) or None,
        fan_in_fan_out=targets.transposed,
    )
    try:
        with _without_bitsandbytes(model):
            made = get_peft_model(model, config, autocast_adapter_dtype=not _value(run, "pure_bf16"))
    except (ValueError, NotImplementedError) as cause:
        raise ModelError(f"{run.plan.where('lora_target')}: {' '.join(str(cause).split())[:300]}") from cause
    return _ready(made, run)


def _without_bitsandbytes(model: Any) -> AbstractContextManager[None]:
    """peft imports bitsandbytes (seconds) for every layer that it looks at; only a quantised model needs it to."""
    return quick_imports() if getattr(model, "quantization_method", None) is None else nullcontext()


def _tell_unused(config: PeftConfig, path: str, run: Run) -> None:
    for key, field in (("lora_rank", "r"), ("lora_alpha", "lora_alpha"), ("use_rslora", "use_rslora")):
        has = getattr(config, field, None)
        if key in run.plan.given and run.value(key) != has:
            where = run.plan.where(key)
            rest = "create_new_adapter: true makes a new one"
            log.warning("%s has no effect: %s goes on as it is, with %s. %s", where, path, has, rest)


def _additional(model: Any, run: Run) -> list[str]:
    wanted = run.options(LoraOptions).additional_target
    names = [name for name, _ in model.named_modules() if name]
    for one in wanted:
        if not matches(one, names):
            raise ModelError(
                f"{run.plan.where('additional_target')}: the model has no module {one}."
                f"{did_you_mean(one, last_names(names))} There is {', '.join(last_names(names))}"
            )
    return list(wanted)


def _ready(model: Any, run: Run) -> Any:
    """The model with what learns in float32, so that small steps are not rounded away (``pure_bf16`` leaves it)."""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in learning:
        if parameter.dtype == torch.float32 or _value(run, "pure_bf16"):
            continue
        if not (_value(run, "bf16") or _value(run, "fp16")):
            raise ModelError(
                f"{run.plan.where('additional_target')}: learns in float32, the rest of the model computes in "
                f"{str(parameter.dtype).removeprefix('torch.')}. Set bf16: true"
            )
        parameter.data = parameter.data.float()
    count, total = sum(parameter.numel() for parameter in learning), sum(p.numel() for p in model.parameters())
    log.info("%s of %s parameters learn (%.2f%%)", f"{count:,}", f"{total:,}", 100 * count / total)
    return model


def _value(run: Run, key: str) -> Any:
    """An option that another plugin owns, None where it is not installed."""
    return run.value(key) if key in run.plan.registry.options else None
