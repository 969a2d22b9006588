"""Exchanging a module or the loss function of a model for the time of one call.

Shapes: B rows, T tokens, H width of the hidden states.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

Answer = Callable[..., Any]


class Handed(dict[Any, Any]):
    """Hidden states in the place of a backbone's outputs; everything else that is asked for is None."""

    def __init__(self, hidden_BTH: torch.Tensor) -> None:
        super().__init__(last_hidden_state=hidden_BTH)

    def __getitem__(self, key: Any) -> Any:
        return self.get("last_hidden_state") if key == 0 else self.get(key)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self.get(name)


class StandIn(nn.Module):
    """Answers in the place of a module; its attributes are those of the real one."""

    def __init__(self, real: nn.Module, answer: Answer) -> None:
        super().__init__()
        self.__dict__ |= {"real": real, "answer": answer}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["real"], name)

    def forward(self, *arguments: Any, **named: Any) -> Any:
        return self.__dict__["answer"](*arguments, **named)


@contextmanager
def exchanged(model: nn.Module, name: str, answer: Answer) -> Iterator[None]:
    parent, _, last = name.rpartition(".")
    children = model.get_submodule(parent)._modules
    real = children[last]
    assert real is not None
    children[last] = StandIn(real, answer)
    try:
        yield
    finally:
        children[last] = real


@contextmanager
def loss_exchanged(model: Any, loss: Callable[..., Any]) -> Iterator[None]:
    before = model.__dict__.get("_loss_function")
    model._loss_function = loss
    try:
        yield
    finally:
        if before is None:
            del model._loss_function
        else:
            model._loss_function = before


def with_hidden(outputs: Any, hidden: torch.Tensor) -> Any:
    if isinstance(outputs, tuple):
        return (hidden, *outputs[1:])
    if isinstance(outputs, Handed):
        return Handed(hidden)
    changed = copy.copy(outputs)
    changed.last_hidden_state = hidden
    return changed
