"""Which modules get a low-rank term."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ftk import ModelError
from ftk.errors import did_you_mean
from torch import nn
from transformers.pytorch_utils import Conv1D


class Targets(NamedTuple):
    """What peft's config takes: names of modules, names of parameters, and whether the matrices are Conv1D's.

    A mixture of experts holds all its experts in one parameter of three dimensions, which is no module of its own.
    """

    modules: list[str]
    parameters: list[str]
    transposed: bool


def find_targets(model: nn.Module, wanted: Iterable[str], where: str) -> Targets:
    """The targets that ``lora_target`` names: ``all``, last names (``q_proj``) or dotted ones (``layers.0.q_proj``).

    Raises ModelError that begins with ``where`` and lists what there is, for a name that is not in the model.
    """
    linear, experts = linear_modules(model), expert_parameters(model)
    wanted = list(wanted)
    if "all" in wanted:
        return _targets(model, last_names(linear), ["experts." + name for name in last_names(experts)])
    modules = [name for name in wanted if matches(name, linear) or matches(name, _embeddings(model))]
    parameters = [name for name in wanted if matches(name, experts)]
    for name in wanted:
        if name not in modules and name not in parameters:
            there = last_names([*linear, *experts])
            raise ModelError(
                f"{where}: the model has no such linear layer.{did_you_mean(name, there)} There is {', '.join(there)}"
            )
    return _targets(model, modules, [name if "." in name else "experts." + name for name in parameters])


def _targets(model: nn.Module, modules: list[str], parameters: list[str]) -> Targets:
    found = [module for name, module in model.named_modules() if any(matches(one, [name]) for one in modules)]
    return Targets(modules, parameters, bool(found) and all(isinstance(module, Conv1D) for module in found))


def linear_modules(model: nn.Module) -> list[str]:
    """Full names of the linear layers, quantised ones included, without the output layer."""
    output = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    return [name for name, module in model.named_modules() if _is_linear(module) and module is not output]


def _is_linear(module: nn.Module) -> bool:
    # quantisers bring classes of their own (Linear4bit, HQQLinear, QuantLinear ...), not always with nn.Linear's base
    name = type(module).__name__
    return isinstance(module, (nn.Linear, Conv1D)) or ("Linear" in name and not any(module.children()))


def expert_parameters(model: nn.Module) -> list[str]:
    """Full names of parameters that hold the matrices of all experts, (experts, ..., ...)."""
    return [
        name for name, parameter in model.named_parameters() if parameter.ndim == 3 and name.split(".")[-2] == "experts"
    ]


def _embeddings(model: nn.Module) -> list[str]:
    output = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    return [name for name, module in model.named_modules() if isinstance(module, nn.Embedding) or module is output]


def last_names(names: Iterable[str]) -> list[str]:
    """The last parts of dotted names, each once, sorted."""
    return sorted({name.rpartition(".")[2] for name in names})


def matches(wanted: str, names: Iterable[str]) -> bool:
    """Whether any of the full names is ``wanted`` or ends in it, part by part."""
    return any(name == wanted or name.endswith("." + wanted) for name in names)
