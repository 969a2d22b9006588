"""Which weights of a model an optimizer treats how: its matrices, what a YAML names of them, what decays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ftk import ConfigError
from ftk.errors import did_you_mean
from torch import nn

from ftk_training.quick_imports import quick_imports

with quick_imports():
    from transformers import Trainer
    from transformers.pytorch_utils import Conv1D


def learning(model: nn.Module) -> list[nn.Parameter]:
    """The weights that learn, each once, in the model's order."""
    return [weight for weight in model.parameters() if weight.requires_grad]


def decaying(model: nn.Module) -> set[nn.Parameter]:
    """The weights that weight decay applies to: all but biases and norms, as transformers' Trainer decides."""
    names = set(Trainer.get_decay_parameter_names(None, model))  # type: ignore[arg-type]  # it reads nothing of itself
    return {weight for name, weight in model.named_parameters() if name in names}


def matrices(model: nn.Module) -> dict[str, nn.Parameter]:
    """The matrices between a model's layers that learn, by full name.

    Those of linear layers, (out, in) or Conv1D's (in, out), and those of all experts in one, (experts, ..., ...); not
    embeddings and not the output layer.
    """
    apart = {id(weight) for weight in ends(model)}
    found: dict[str, nn.Parameter] = {}
    for name, module in model.named_modules():
        linear = isinstance(module, (nn.Linear, Conv1D))
        for part, weight in module.named_parameters(recurse=False):
            is_matrix = weight.ndim == 2 if linear else weight.ndim == 3 and name.split(".")[-1] == "experts"
            if is_matrix and weight.requires_grad and id(weight) not in apart:
                found[f"{name}.{part}"] = weight
    return found


def ends(model: Any) -> list[nn.Parameter]:
    """The weights of embeddings and of the output layer."""
    output = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    modules = [module for module in model.modules() if isinstance(module, nn.Embedding) or module is output]
    return [weight for module in modules for weight in module.parameters()]


def named_matrices(model: nn.Module, wanted: Iterable[str], where: str) -> dict[str, nn.Parameter]:
    """Those of :func:`matrices` that a YAML names: ``all``, or parts of module names (``mlp``, ``self_attn.q_proj``).

    Raises ConfigError that begins with ``where`` when a name fits nothing, or when no matrix learns.
    """
    there = matrices(model)
    if not there:
        raise ConfigError(f"{where}: no matrix of the model learns. Take finetuning_type: full or freeze")
    wanted = list(wanted)
    if "all" in wanted:
        return there
    for one in wanted:
        if not any(_is_within(one, name) for name in there):
            parts = sorted({part for name in there for part in name.split(".")[:-1] if not part.isdigit()})
            raise ConfigError(
                f"{where}: no matrix that learns has {one} in its name.{did_you_mean(one, parts)} "
                f"There is {', '.join(parts)}"
            )
    return {name: weight for name, weight in there.items() if any(_is_within(one, name) for one in wanted)}


def _is_within(wanted: str, name: str) -> bool:
    return f".{wanted}." in f".{name}."


def the_rest(model: nn.Module, taken: Mapping[str, nn.Parameter]) -> Sequence[nn.Parameter]:
    """The weights that learn and are not ``taken``."""
    ids = {id(weight) for weight in taken.values()}
    return [weight for weight in learning(model) if id(weight) not in ids]
