"""Which modules get a low-rank term."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from ftk import ModelError
from ftk.errors import did_you_mean
from torch import nn
from transformers.pytorch_utils import Conv1D


class Targets(NamedTuple):
    """What peft's config takes: names of modules, names of parameters, whether the matrices are Conv1D's, and which
    modules stay as they are although their names fit, as a regular expression.

    A mixture of experts holds all its experts in one parameter of three dimensions, which is no module of its own.
    """

    modules: list[str]
    parameters: list[str]
    transposed: bool
    excluded: str | None = None


def find_targets(model: nn.Module, wanted: Iterable[str], where: str) -> Targets:
    """The targets that ``lora_target`` names: ``all``, last names (``q_proj``) or dotted ones (``layers.0.q_proj``).

    In a model that sees or hears they are those of its language model, apart from names that occur beside it alone
    (``linear_1`` or ``vision_tower.layers.0.self_attn.q_proj`` in LLaVA).
    Raises ModelError that begins with ``where`` and lists what there is, for a name that is not in the model.
    """
    linear, experts, beside = linear_modules(model), expert_parameters(model), beside_language(model)
    wanted = list(wanted)
    if "all" in wanted:
        names = last_names(name for name in linear if not _under(beside, name))
        return _targets(model, names, ["experts." + name for name in last_names(experts)], beside)
    known = [*linear, *_embeddings(model)]
    modules = [name for name in wanted if matches(name, known)]
    parameters = [name for name in wanted if matches(name, experts)]
    for name in wanted:
        if name not in modules and name not in parameters:
            there = last_names([*linear, *experts])
            raise ModelError(
                f"{where}: the model has no such linear layer.{did_you_mean(name, there)} There is {', '.join(there)}"
            )
    parameters = [name if "." in name else "experts." + name for name in parameters]
    inside = [name for name in known if not _under(beside, name)]
    if any(not matches(name, inside) for name in modules):
        full = [one for name in modules for one in (_fitting(name, inside) or _fitting(name, known))]
        return _targets(model, sorted(set(full)), parameters, [])
    return _targets(model, modules, parameters, beside)


def _targets(model: nn.Module, modules: list[str], parameters: list[str], beside: list[str]) -> Targets:
    found = [module for name, module in model.named_modules() if any(matches(one, [name]) for one in modules)]
    transposed = bool(found) and all(isinstance(module, Conv1D) for module in found)
    excluded = rf"(?:{'|'.join(map(re.escape, beside))})(?:\..+)?" if beside else None
    return Targets(modules, parameters, transposed, excluded)


def beside_language(model: nn.Module) -> list[str]:
    """Full names of what a model has beside its language model to see or hear: towers, projectors; else none.

    transformers says what the language model is (``get_decoder``), and whether there is anything else.
    """
    if not hasattr(model, "get_decoder") or not hasattr(model, "get_encoder"):
        return []
    language = model.get_decoder()
    encoders = [model.get_encoder(modality) for modality in ("image", "audio")]
    if all(one is model or one is language for one in encoders):
        return []
    place = next((name for name, module in model.named_modules() if module is language), "")
    output = model.get_output_embeddings()
    beside: list[str] = []
    for name, module in model.named_modules():
        around = f"{place}.".startswith(f"{name}.") or f"{name}.".startswith(f"{place}.")
        if name and place and not around and module is not output and not _under(beside, name):
            beside.append(name)
    return beside


def _under(tops: list[str], name: str) -> bool:
    return any(name == top or name.startswith(top + ".") for top in tops)


def _fitting(wanted: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if matches(wanted, [name])]


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
