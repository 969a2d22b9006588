"""Finding the weights with which a block writes into the residual stream.

Shapes: B rows, T tokens, H width of the residual stream.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from ftk import ModelError
from torch import nn

NEW = "llama_pro_layers"
"""The field of a config that lists the numbers (from 0) of the new blocks."""


class Calls:
    """The last call of every module of a block, as it happened while the model ran."""

    def __init__(self) -> None:
        self.seen: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {}

    def watch(self, block: nn.Module) -> Iterator[Any]:
        for name, module in block.named_modules():
            yield module.register_forward_pre_hook(self._noting(name), with_kwargs=True)

    def _noting(self, name: str) -> Any:
        def note(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
            self.seen.pop(name, None)  # so that the order is that of the calls
            self.seen[name] = (_double(arguments), _double(named))

        return note


def _double(value: Any) -> Any:
    """A copy with float64 tensors, in which a change can be told from rounding."""
    if isinstance(value, torch.Tensor):
        return value.detach().double() if value.is_floating_point() else value
    if isinstance(value, (tuple, list)):
        return type(value)(_double(one) for one in value)
    return {key: _double(one) for key, one in value.items()} if isinstance(value, dict) else value


def silenced(block: nn.Module, calls: Calls) -> nn.Module:
    """A copy of a block that hands on what it gets, and that can learn to do more.

    Its writers are zero: the weights whose output is added to the residual stream as it is. They are found by changing
    the output of each linear part of a branch (attention, feed-forward) a little: a writer's change arrives at the
    branch's end in the same direction for every token, any other's is mixed or bent on the way. Experts that share a
    parameter write, and so does, of matrices that are no part of a branch, the last one.
    Raises ModelError when the copy then still does something, or when one of its writers would have no gradient.
    """
    copied = copy.deepcopy(block)
    exact = copy.deepcopy(block).double()
    for part in exact.modules():  # mixtures of experts have kernels that want float32
        if hasattr(part, "config") and hasattr(part.config, "_experts_implementation_internal"):
            part.config = copy.copy(part.config)
            part.config._experts_implementation_internal = "eager"
    names = [name for branch in _branches(exact, calls) for name in _writers(exact, branch, calls)]
    zeroed = []
    for name in names:
        for one in (copied, exact):
            for weight_name, weight in _written_with(one.get_submodule(name)):
                weight.data.zero_()
                if one is exact:
                    zeroed.append((f"{name}.{weight_name}", weight))
    _check(exact, calls, zeroed)
    return copied


def _branches(block: nn.Module, calls: Calls) -> list[str]:
    """The children of a block that hold matrices and were called."""
    children = [name for name, child in block.named_children() if any(_has_matrix(one) for one in child.modules())]
    return [name for name in children if name in calls.seen]


def _has_matrix(module: nn.Module) -> bool:
    return any(weight.ndim > 1 for weight in module.parameters(recurse=False))


def _has_experts(module: nn.Module) -> bool:
    return sum(weight.ndim == 3 for weight in module.parameters(recurse=False)) > 1


def _first(output: Any) -> torch.Tensor:
    found = output[0] if isinstance(output, tuple) else output
    assert isinstance(found, torch.Tensor)
    return found


@torch.no_grad()
def _writers(block: nn.Module, branch: str, calls: Calls) -> Iterator[str]:
    child = block.get_submodule(branch)
    if _has_matrix(child) and not any(_has_matrix(one) for one in child.children()):
        if [name for name in calls.seen if _has_matrix(block.get_submodule(name))][-1] == branch:
            yield branch
        return
    arguments, named = calls.seen[branch]
    plain_TH = _first(child(*arguments, **named)).flatten(0, -2)
    for name, module in child.named_modules():
        if not _has_matrix(module) or any(_has_matrix(one) for one in module.modules() if one is not module):
            continue
        changes: list[torch.Tensor] = []

        def nudge(_: Any, __: Any, output: Any, changes: list[torch.Tensor] = changes) -> Any:
            if not isinstance(output, torch.Tensor) or output.shape[-1] != plain_TH.shape[-1]:
                return output
            generator = torch.Generator().manual_seed(len(changes))
            change = torch.randn(output.shape, generator=generator, dtype=output.dtype) * output.std().clamp(min=1e-3)
            changes.append(change)
            return output + change

        hook = module.register_forward_hook(nudge)
        try:
            changed_TH = _first(child(*arguments, **named)).flatten(0, -2)
        finally:
            hook.remove()
        if len(changes) != 1:
            continue
        arrived_TH = changed_TH - plain_TH
        if _parallel(arrived_TH, changes[0].flatten(0, -2)) or (_has_experts(module) and arrived_TH.abs().max() > 0):
            yield f"{branch}.{name}"


def _parallel(found_TH: torch.Tensor, sent_TH: torch.Tensor) -> bool:
    """Whether every token's change is a multiple, other than zero, of what was sent."""
    if found_TH.shape != sent_TH.shape:
        return False
    along = (found_TH * sent_TH).sum(-1, keepdim=True) / sent_TH.square().sum(-1, keepdim=True)
    apart_T = (found_TH - along * sent_TH).norm(dim=-1)
    return bool((along.abs() > 1e-6).all() and (apart_T < 1e-6 * found_TH.norm(dim=-1)).all())


def _written_with(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The weights of a writer that have to be zero: its matrix with its bias. Experts hold two matrices in one module,
    of which the second writes; zero in the first would do, too, but then neither would have a gradient."""
    weights = list(module.named_parameters(recurse=False))
    deepest = max(weight.ndim for _, weight in weights)
    last = max(place for place, (_, weight) in enumerate(weights) if weight.ndim == deepest)
    return [weights[last], *weights[last + 1 :]]


def _check(block: nn.Module, calls: Calls, zeroed: list[tuple[str, nn.Parameter]]) -> None:
    arguments, named = calls.seen[""]
    block.requires_grad_(False)
    for _, weight in zeroed:
        weight.requires_grad_(True)
    given_BTH = arguments[0] if arguments else named["hidden_states"]
    output_BTH = _first(block(*arguments, **named))
    if not torch.equal(output_BTH, given_BTH):
        raise ModelError(f"{type(block).__name__}: what it writes into the residual stream could not be found")
    towards_BTH = torch.randn(output_BTH.shape, generator=torch.Generator().manual_seed(0), dtype=output_BTH.dtype)
    gradients = torch.autograd.grad((output_BTH * towards_BTH).sum(), [one for _, one in zeroed], allow_unused=True)
    for (name, _), gradient in zip(zeroed, gradients, strict=True):
        if gradient is None or not gradient.abs().max() > 0:
            raise ModelError(f"{type(block).__name__}: {name} could not learn in a new block")
