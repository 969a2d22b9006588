"""From ftk's options to transformers' ``TrainingArguments``."""

from __future__ import annotations

import dataclasses
import logging
import os
from typing import TYPE_CHECKING, Any

import torch
from ftk import ConfigError
from ftk.options import fields_of

from ftk_training.found_out import check_push
from ftk_training.optims import check_optim
from ftk_training.options import TrainingOptions
from ftk_training.quick_imports import quick_imports

with quick_imports():
    from transformers import TrainingArguments

if TYPE_CHECKING:
    from ftk.run import Run

log = logging.getLogger("ftk.training")

CHECKPOINTING = ("gradient_checkpointing", "activation_checkpointing")
"""The old and the new name of one thing; transformers knows the new one since 5.20 or so."""


def make_arguments(run: Run) -> TrainingArguments:
    """The arguments of a run. Makes the process group of a distributed run as a side effect, as transformers does.

    Raises ConfigError for combinations that transformers refuses, and for an optimizer that cannot work here.
    """
    check_optim(run)
    check_push(run)
    options = run.options(TrainingOptions)
    known = {field.name for field in dataclasses.fields(TrainingArguments) if field.init}
    values = {key: getattr(options, key) for key in fields_of(TrainingOptions) if key in known}
    values |= _decided(options, known)
    for key, field in fields_of(TrainingOptions).items():
        changed = getattr(options, key) != field.default
        if changed and key not in known | OWN and not key.startswith(CHECKPOINTING):
            log.warning("%s: the installed transformers has no such argument; it has no effect", key)
    try:
        return TrainingArguments(output_dir=str(run.output_dir), seed=run.seed, report_to=[], **values)
    except (ValueError, TypeError, ImportError, OSError) as cause:
        raise ConfigError(f"{run.plan.config}: {' '.join(str(cause).split())}") from cause


OWN = frozenset(
    {"compute_accuracy", "disable_gradient_checkpointing", "disable_shuffling", "early_stopping_steps",
     "exploding_loss", "logging_dir", "on_bad_loss", "padding_free", "plot_loss", "pure_bf16", "use_reentrant_gc"}
)  # fmt: skip
"""Options that transformers does not know and ftk acts on itself."""


def _decided(options: TrainingOptions, known: set[str]) -> dict[str, Any]:
    """The arguments that are not the option of that name as it stands."""
    checkpointing = CHECKPOINTING[1] if CHECKPOINTING[1] in known else CHECKPOINTING[0]
    wanted = wants_checkpointing(options)
    values: dict[str, Any] = {
        checkpointing: wanted,
        f"{checkpointing}_kwargs": _checkpointing_kwargs(options) if wanted else None,
        "use_cpu": not _on_accelerator(options),
        "bf16": options.bf16 and not options.pure_bf16,
        "ddp_backend": options.ddp_backend if "WORLD_SIZE" in os.environ else None,  # fails without a launcher
        "eval_steps": options.eval_steps or (options.logging_steps if options.logging_steps >= 1 else 500),
        "logging_nan_inf_filter": options.logging_nan_inf_filter,
        "include_for_metrics": options.include_for_metrics or [],
        "remove_unused_columns": False,
        "disable_tqdm": True,
        "enable_jit_checkpoint": False,  # ftk_training.interrupting does that
    }
    if checkpointing == CHECKPOINTING[1]:
        values |= {CHECKPOINTING[0]: None, f"{CHECKPOINTING[0]}_kwargs": None}
    if options.disable_shuffling:
        values["train_sampling_strategy"] = "sequential"
    if options.parallelism_config:
        from accelerate import ParallelismConfig

        values["parallelism_config"] = ParallelismConfig(**options.parallelism_config)
    return {key: value for key, value in values.items() if key in known}


def _on_accelerator(options: TrainingOptions) -> bool:
    return not options.use_cpu and torch.accelerator.is_available()


def wants_checkpointing(options: TrainingOptions) -> bool:
    """Whether activations are recomputed: as the user says; unsaid, on an accelerator, where memory runs out first."""
    for said in (options.activation_checkpointing, options.gradient_checkpointing):
        if said is not None:
            return said
    return not options.disable_gradient_checkpointing and _on_accelerator(options)


def is_reentrant(options: TrainingOptions) -> bool:
    kwargs = _checkpointing_kwargs(options)
    return bool(kwargs.get("use_reentrant")) if isinstance(kwargs, dict) else True


def _checkpointing_kwargs(options: TrainingOptions) -> dict[str, Any] | str:
    given = options.activation_checkpointing_kwargs or options.gradient_checkpointing_kwargs
    if isinstance(given, str):
        return given
    return {"use_reentrant": options.use_reentrant_gc, **(given or {})}
