"""The blocks of a language model, whatever its family calls them."""

from __future__ import annotations

from typing import Any

from ftk import ModelError
from torch import nn


def stack_of(model: Any) -> tuple[str, nn.ModuleList]:
    """The full name of the list of blocks, and the list: as long as the config says, and the largest of that length.

    Raises ModelError when there is none.
    """
    count = getattr(model.config.get_text_config(decoder=True), "num_hidden_layers", None)
    names = {id(module): name for name, module in model.named_modules()}
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else model
    stacks = [one for one in decoder.modules() if isinstance(one, nn.ModuleList) and len(one) == count]
    stacks = [one for one in stacks if id(one) in names]
    if not stacks:
        raise ModelError(f"{model.config.model_type}: there is no stack of {count} blocks in it")
    stack = max(stacks, key=lambda one: sum(weight.numel() for weight in one.parameters()))
    return names[id(stack)], stack
