"""Norms and logits in float32."""

from __future__ import annotations

from collections.abc import Iterator
from types import MethodType
from typing import TYPE_CHECKING, Any

import ftk

if TYPE_CHECKING:
    from ftk.run import Run


@ftk.options
class UpcastOptions:
    """What is float32 in a model that is not."""

    upcast_layernorm: bool = ftk.option(False, help="Weights and arithmetic of all norms in float32 while training.")
    upcast_lmhead_output: bool = ftk.option(False, help="Logits in float32 while training.")


@ftk.hookimpl
def ftk_model_patches() -> Iterator[ftk.ModelPatch]:
    yield ftk.ModelPatch(
        "upcast-layernorm",
        target="ftk_upcast:norms_in_float32",
        options=UpcastOptions,
        switch="upcast_layernorm",
        summary="Norms in float32 while training",
    )
    yield ftk.ModelPatch(
        "upcast-lmhead-output",
        target="ftk_upcast:logits_in_float32",
        options=UpcastOptions,
        switch="upcast_lmhead_output",
        summary="Logits in float32 while training",
    )


def norms_in_float32(model: Any, run: Run) -> Any:
    """The model with float32 norms that take and return what they did before."""
    if run.plan.one("trainer") is None:
        return model
    for module in model.modules():
        weights = list(module.parameters(recurse=False))
        if "Norm" in type(module).__name__ and weights and all(weight.ndim == 1 for weight in weights):
            module.float()
            module.forward = MethodType(_in_float32(module.forward.__func__), module)
    return model


def _in_float32(own: Any) -> Any:
    def forward(self: Any, states: Any, *arguments: Any, **named: Any) -> Any:
        return own(self, states.float(), *arguments, **named).to(states.dtype)

    return forward


def logits_in_float32(model: Any, run: Run) -> Any:
    """The model whose output layer returns float32."""
    output = model.get_output_embeddings()
    if run.plan.one("trainer") is not None and output is not None:
        output.register_forward_hook(lambda _, __, logits: logits.float())
    return model
