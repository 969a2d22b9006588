"""Which modules get something beside them, and which learn as a whole."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from ftk import ModelError
from ftk.errors import did_you_mean
from ftk_training.learning import is_freed, why_kept
from ftk_training.parts import parts_of
from torch import nn
from transformers.pytorch_utils import Conv1D

from ftk_peft import PeftOptions

if TYPE_CHECKING:
    from ftk.run import Run


class Targets(NamedTuple):
    """What peft's config takes: names of modules, names of parameters, whether the matrices are Conv1D's, and which
    modules stay as they are although their names fit, as a regular expression.

    A mixture of experts holds all its experts in one parameter of three dimensions, which is no module of its own.
    """

    modules: list[str]
    parameters: list[str]
    transposed: bool
    excluded: str | None = None


def find_targets(model: nn.Module, wanted: Iterable[str], run: Run, key: str, *, experts: bool = True) -> Targets:
    """The targets that ``key`` names: ``all``, last names (``q_proj``) or dotted ones (``layers.0.q_proj``).

    In a model that sees or hears they are those of its language model and of what a patch has freed, apart from names
    that occur beside it alone (``linear_1`` or ``vision_tower.layers.0.self_attn.q_proj`` in LLaVA). What a patch keeps
    is left out. ``experts``: whether the adapter can change parameters that all experts share.
    Raises ModelError that lists what there is for a name that is not in the model, or says who keeps it.
    """
    where = run.plan.where(key)
    linear, shared = linear_modules(model), expert_parameters(model) if experts else []
    beside, known = list(parts_of(model).beside_language), [*linear, *_embeddings(model)]
    open_names = [name for name in known if not why_kept(run, name)]
    inside = [name for name in open_names if not _under(beside, name) or is_freed(run, name)]
    open_experts = [name for name in shared if not why_kept(run, name)]
    wanted = list(wanted)
    if "all" in wanted:
        inside = [name for name in inside if name not in _read_by_kernels(model)]
        names = last_names(name for name in inside if name in linear)
        parameters = ["experts." + name for name in last_names(open_experts)]
        if not names and not parameters:
            raise ModelError(f"{where}: no linear layer may learn{_who(run, linear)}")
        return _targets(model, names, _placed(parameters, shared, open_experts), inside, beside)
    modules = [name for name in wanted if matches(name, known)]
    parameters = [name for name in wanted if matches(name, shared)]
    for name in wanted:
        there = last_names([*linear, *shared])
        if name not in modules and name not in parameters:
            raise ModelError(
                f"{where}: the model has no such linear layer.{did_you_mean(name, there)} There is {', '.join(there)}"
            )
        if not matches(name, [*open_names, *open_experts]):
            raise ModelError(f"{where}: {name} may not learn{_who(run, _fitting(name, [*known, *shared]))}")
    parameters = [name if "." in name else "experts." + name for name in parameters]
    full = [one for name in modules for one in (_fitting(name, inside) or _fitting(name, open_names))]
    return _targets(model, modules, _placed(parameters, shared, open_experts), full, beside)


def _who(run: Run, names: list[str]) -> str:
    said = sorted({why_kept(run, name) for name in names} - {""})
    return f": {', '.join(said)}" if said else ""


def _placed(parameters: list[str], shared: list[str], allowed: list[str]) -> list[str]:
    """Last names, or full ones where some of the parameters that fit may not learn."""
    fitting = [name for name in shared if any(matches(one, [name]) for one in parameters)]
    return parameters if set(fitting) <= set(allowed) else [name for name in fitting if name in allowed]


def _targets(
    model: nn.Module, modules: list[str], parameters: list[str], full: list[str], beside: list[str]
) -> Targets:
    """Last names where they say the same as the full ones, with what else they fit as excluded.

    In a Sequential a layer's last name is a number, which every stack of blocks has, so its full name is taken.
    """
    named = [name for name in modules if not name.isdigit()]
    modules = [*named, *(name for name in full if name.rpartition(".")[2] in set(modules) - set(named))]
    fitting = [name for name, _ in model.named_modules() if any(matches(one, [name]) for one in modules)]
    found = [model.get_submodule(name) for name in full if any(matches(one, [name]) for one in modules)]
    transposed = bool(found) and all(isinstance(module, Conv1D) for module in found)
    others = sorted(set(fitting) - set(full))
    tops = [top for top in beside if _any_under(top, others) and not _any_under(top, full)]
    patterns = [re.escape(top) + r"\..+" for top in tops]
    patterns += [re.escape(name) for name in others if not _under(tops, name)]
    return Targets(modules, parameters, transposed, "|".join(patterns) or None)


def _any_under(top: str, names: list[str]) -> bool:
    return any(_under([top], name) for name in names)


def additional_modules(model: nn.Module, run: Run) -> list[str]:
    """The names in ``additional_target``. Raises ModelError for one that is not in the model or may not learn."""
    wanted, where = run.options(PeftOptions).additional_target, run.plan.where("additional_target")
    names = [name for name, _ in model.named_modules() if name]
    for one in wanted:
        if not matches(one, names):
            there = ", ".join(last_names(names))
            raise ModelError(
                f"{where}: the model has no module {one}.{did_you_mean(one, last_names(names))} There is {there}"
            )
        if kept := [name for name in _fitting(one, names) if why_kept(run, name)]:
            raise ModelError(f"{where}: {one} may not learn{_who(run, kept)}")
    return list(wanted)


def token_rows(model: nn.Module, run: Run, whole: Iterable[str]) -> dict[str, list[int]]:
    """Full name of the embeddings and of an output layer with a weight of its own → the tokens that the run has added.

    Left out is what learns as a ``whole``, and what a patch keeps.
    """
    if not run.tokens.added:
        return {}
    places = _ends(model)
    if ties(model, places):
        places = places[:1]
    return {
        name: list(run.tokens.added)
        for name in places
        if not why_kept(run, name) and not any(matches(one, [name]) for one in whole)
    }


def ties(model: nn.Module, names: Iterable[str]) -> bool:
    """Whether a name means one of two modules that share a weight: the embeddings and the output layer."""
    ends = [model.get_input_embeddings(), model.get_output_embeddings()]
    if any(one is None for one in ends) or ends[0].weight is not ends[1].weight:
        return False
    return any(matches(name, _ends(model)) for name in names)


def _ends(model: nn.Module) -> list[str]:
    """Full names of the embeddings and the output layer, as far as they are there."""
    names = {id(module): name for name, module in model.named_modules()}
    ends = [model.get_input_embeddings(), model.get_output_embeddings()]
    return [names[id(one)] for one in ends if one is not None and id(one) in names]


def _under(tops: list[str], name: str) -> bool:
    return any(name == top or name.startswith(top + ".") for top in tops)


def _fitting(wanted: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if matches(wanted, [name])]


def linear_modules(model: nn.Module) -> list[str]:
    """Full names of the linear layers, quantised ones included, without the output layer."""
    output = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    return [name for name, module in model.named_modules() if _is_linear(module) and module is not output]


def _is_linear(module: nn.Module) -> bool:
    # quantisers bring classes of their own (Linear4bit, HQQLinear, QuantLinear ...), not always with nn.Linear's base;
    # a model's own class that computes something else is no linear layer (Llama 4's router returns a pair)
    kind = type(module)
    if "Linear" in kind.__name__:
        return not any(module.children())
    return isinstance(module, Conv1D) or (isinstance(module, nn.Linear) and kind.forward is nn.Linear.forward)


def _read_by_kernels(model: nn.Module) -> set[str]:
    """Full names of layers whose weight a state-space kernel reads past their forward (peft refuses them, too)."""
    return {f"{name}.out_proj" for name, module in model.named_modules() if hasattr(module, "A_log")}


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
