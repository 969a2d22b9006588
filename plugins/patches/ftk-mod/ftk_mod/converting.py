"""Giving a model routers, and getting them back from its files."""

from __future__ import annotations

import json
import logging
from types import MethodType
from typing import TYPE_CHECKING, Any

import torch
from ftk import ConfigError, ModelError
from ftk_training.stack import stack_of
from safetensors import safe_open
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import cached_file

from ftk_mod import ModOptions
from ftk_mod.routing import Routed, Router

if TYPE_CHECKING:
    from ftk.run import Run

log = logging.getLogger("ftk.mod")
FIELD = "mixture_of_depths"
ROUTER = "mod_router"


def check(config: Any, run: Run) -> Any:
    """The config as it is. Raises ConfigError when the model has routers already, or has none to load."""
    wanted, has = run.options(ModOptions).mixture_of_depths, getattr(config, FIELD, None)
    if run.plan.one("trainer") is not None and wanted == "convert" and has:
        raise ConfigError(f"{run.plan.where(FIELD)}: the model has routers already. Set it to load")
    if wanted == "load" and not has:
        raise ConfigError(f"{run.plan.where(FIELD)}: the model has no routers. Set it to convert")
    if has:  # transformers would report them as unexpected; every model's own list is added to this one
        PreTrainedModel._keys_to_ignore_on_load_unexpected = [rf"\.{ROUTER}\."]
    return config


def patch(model: Any, run: Run) -> Any:
    """The model with routers: new ones, or those of its files. A base model that only answers stays as it is.

    Raises ModelError when its blocks cannot work on some of the tokens, or when its files hold other routers.
    """
    options, stored = run.options(ModOptions), getattr(model.config, FIELD, None)
    training = run.plan.one("trainer") is not None
    if not stored and not training:
        return model
    settings = stored or {"capacity": options.mod_capacity, "every": options.mod_every}
    batches = run.value("gradient_accumulation_steps") if training else 1
    routers = add_routers(model, settings, share=1 / batches, seed=run.seed)
    if stored:
        _load(model, routers, run)
    setattr(model.config, FIELD, settings)
    _try(model, run)
    log.info("%d of %d blocks take %g of the tokens", len(routers), len(stack_of(model)[1]), settings["capacity"])
    return model


def add_routers(model: Any, settings: dict[str, Any], *, share: float = 1.0, seed: int = 0) -> list[str]:
    """Put a router before every ``settings["every"]``-th block, the first one aside; return their full names."""
    name, stack = stack_of(model)
    names = []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for number in range(settings["every"] - 1, len(stack), settings["every"]):
            block: Any = stack[number]
            like = next(block.parameters())
            router = Router(model.config.get_text_config().hidden_size)
            nn.init.normal_(router.score.weight, std=0.02)
            block.add_module(ROUTER, router.to(like.device, like.dtype))
            _route(block, settings["capacity"], share)
            names.append(f"{name}.{number}.{ROUTER}")
    for config in (model.config, model.config.get_text_config()):
        config.use_cache = False
    if model.generation_config is not None:
        model.generation_config.use_cache = False
    return names


def _route(block: Any, capacity: float, share: float) -> None:
    routed = Routed(block.forward.__func__, capacity, share)

    def forward(self: Any, hidden_states: torch.Tensor, *rest: Any, **named: Any) -> Any:
        return routed(self, hidden_states, *rest, **named)

    block.forward = MethodType(forward, block)


def _load(model: Any, routers: list[str], run: Run) -> None:
    where, found = run.plan.where("model_name_or_path"), {}
    index = cached_file(run.model_path, "model.safetensors.index.json", _raise_exceptions_for_missing_entries=False)
    files = {"model.safetensors"}
    if index:
        with open(index, encoding="utf-8") as opened:
            files = {file for key, file in json.load(opened)["weight_map"].items() if f".{ROUTER}." in key}
    for file in sorted(files):
        with safe_open(str(cached_file(run.model_path, file)), framework="pt") as opened:
            keys = [key for key in opened.keys() if f".{ROUTER}." in key]  # noqa: SIM118 - it is no dict
            found |= {key: opened.get_tensor(key) for key in keys}
    wanted = {f"{name}.{key}" for name in routers for key in model.get_submodule(name).state_dict()}
    if wanted != found.keys():
        odd = sorted(wanted ^ found.keys())[0]
        raise ModelError(f"{where}: its routers are not those that its config.json describes, for instance {odd}")
    model.load_state_dict(found, strict=False)


@torch.no_grad()
def _try(model: Any, run: Run) -> None:
    """One pass in training and one in evaluation over a few tokens."""
    was = model.training
    ids = torch.arange(16, device=model.device)[None] % model.config.get_text_config().vocab_size
    try:
        for mode in (True, False):
            model.train(mode)(input_ids=ids)
    except (RuntimeError, TypeError, ValueError, IndexError) as cause:
        text = " ".join(str(cause).split())[:200]
        raise ModelError(
            f"{run.plan.where(FIELD)}: blocks of {model.config.model_type} cannot work on some of the tokens: {text}"
        ) from cause
    finally:
        model.train(was)
