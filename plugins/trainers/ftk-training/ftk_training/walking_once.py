"""A training step without walks over the modules of its model.

transformers walks over all of them three times a step: to set them to training, to gather the parameters whose
gradients are clipped, and to drop those gradients. An adapter makes ten modules of one. What the walks find does not
change within an epoch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import TYPE_CHECKING, Any

from accelerate import DistributedType

if TYPE_CHECKING:
    from torch import nn

    from ftk_training.trainer import ExactTrainer

PARAMETERS = "_ftk_parameters"
REPLICATED = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
"""Ways to train in which each process has the whole model, and its parameters stay what they are."""


@contextmanager
def walking_once(trainer: ExactTrainer, model: nn.Module) -> Iterator[None]:
    """In this block ``model`` is walked over once: ``train()`` only when it is in evaluation, ``zero_grad()`` never.

    The methods are the model's own again afterwards. Does nothing for a model that is spread over processes, split over
    the devices of one, compiled, or has such methods of another library. A copy made within the block has its own list.
    """
    args = trainer.args
    own = vars(model).keys() & {"train", "zero_grad", PARAMETERS}
    spread = trainer.accelerator.distributed_type not in REPLICATED or args.n_gpu > 1
    if own or spread or args.torch_compile:
        yield
        return
    type(model).train(model)
    instead = {
        PARAMETERS: list(model.parameters()),
        "train": MethodType(_train, model),
        "zero_grad": MethodType(_zero_grad, model),
    }
    vars(model).update(instead)
    try:
        yield
    finally:
        for name in instead:
            vars(model).pop(name, None)


def walks_once(model: nn.Module) -> bool:
    """Whether a block of :func:`walking_once` holds for the model."""
    return PARAMETERS in vars(model)


def parameters_of(model: nn.Module) -> list[nn.Parameter]:
    """All parameters of a model for which :func:`walks_once`."""
    found: list[nn.Parameter] = vars(model)[PARAMETERS]
    return found


def _train(model: Any, mode: bool = True) -> nn.Module:
    """Walks unless the model and the one in its adapters, which answers prompts by itself, are in training already."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return model if mode and model.training and inner.training else type(model).train(model, mode)


def _zero_grad(model: nn.Module, set_to_none: bool = True) -> None:
    if not set_to_none:
        return type(model).zero_grad(model, set_to_none)
    for parameter in vars(model)[PARAMETERS]:
        parameter.grad = None
