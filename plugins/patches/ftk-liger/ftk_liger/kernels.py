"""Asking Liger what it has for a model, and putting it in."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from ftk import ConfigError
from ftk.errors import did_you_mean

from ftk_liger import LigerOptions

if TYPE_CHECKING:
    from ftk.run import Run

log = logging.getLogger("ftk.liger")


def check(config: Any, run: Run) -> Any:
    """The config as it is. Raises ConfigError, before loading, without a GPU and when Liger has nothing for it."""
    if run.plan.one("trainer") is not None:
        where = run.plan.where("enable_liger_kernel")
        if run.value("use_cpu") or not torch.accelerator.is_available():
            raise ConfigError(f"{where}: Liger's kernels need a GPU, and this run has none. Take it out")
        _kernels(run, _function(config.model_type, where))
    return config


def apply(model: Any, run: Run) -> Any:
    """The model with Liger's kernels in it, while it trains."""
    if run.plan.one("trainer") is None:
        return model
    function = _function(model.config.model_type, run.plan.where("enable_liger_kernel"))
    kernels = _kernels(run, function)
    function(model=model, **kernels)
    log.info("%s (%s)", function.__name__, ", ".join(f"{name} {on}" for name, on in kernels.items()) or "all kernels")
    return model


def _function(model_type: str, where: str) -> Callable[..., None]:
    """What Liger calls for a type of models. Raises ConfigError with the types that it knows."""
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN as KNOWN

    if model_type not in KNOWN:
        guess, known = did_you_mean(model_type, KNOWN), ", ".join(sorted(KNOWN))
        raise ConfigError(f"{where}: Liger has no kernels for {model_type} models.{guess} It has them for {known}")
    function: Callable[..., None] = KNOWN[model_type]
    return function


def _kernels(run: Run, function: Callable[..., None]) -> dict[str, bool]:
    """The kernels that the user names. Raises ConfigError for one that Liger does not have, which it would ignore."""
    wanted = run.options(LigerOptions).liger_kernel_config or {}
    known = [name for name in inspect.signature(function).parameters if name != "model"]
    for name in wanted:
        if name not in known:
            raise ConfigError(
                f"{run.plan.where('liger_kernel_config')}: Liger has no kernel {name} for this model."
                f"{did_you_mean(name, known)} It has {', '.join(known)}"
            )
    return wanted
