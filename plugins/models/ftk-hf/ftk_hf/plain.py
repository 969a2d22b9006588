"""Plain weights in place of quantised ones, whatever quantised them: adapters are merged into these."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers.quantizers import HfQuantizer

if TYPE_CHECKING:
    from ftk.run import Run

log = logging.getLogger("ftk.hf")


def dequantize(model: Any, run: Run) -> Any:
    """The model in its own type with the weights that its quantised layers compute with, each layer in turn.

    Nothing is rounded further, but the model takes two or four bytes for each weight, which is said aloud. A plain
    model comes back as it is.
    """
    quantizer = getattr(model, "hf_quantizer", None)
    if quantizer is None:
        return model
    before = model.get_memory_footprint()
    if type(quantizer)._dequantize is not HfQuantizer._dequantize:
        model = model.dequantize()
    else:
        for name, layer in list(model.named_modules()):
            if is_quantised(layer):
                model.set_submodule(name, _plain(layer, model.dtype))
        quantizer.remove_quantization_config(model)
    for mark in ("is_loaded_in_4bit", "is_loaded_in_8bit"):
        if hasattr(model, mark):
            delattr(model, mark)  # peft believes them
    save_plainly(model)
    sizes = f"{model.get_memory_footprint() / 1e6:,.1f} MB instead of {before / 1e6:,.1f}"
    log.warning("%s: its quantised weights are plain ones now, as rounded as they were: %s", run.model_path, sizes)
    return model


def save_plainly(model: Any) -> None:
    """Have weights that were made plain saved under their own names.

    transformers would take the way back that it came by, which for quantised files ends in an error or, for those of
    MXFP4, in the weights of all layers under one name (5.19).
    """
    known = getattr(model, "_weight_conversions", None) or []
    model._weight_conversions = [one for one in known if not _reads_quantised(one)]


def _reads_quantised(conversion: Any) -> bool:
    operations = getattr(conversion, "operations", ())
    return bool(operations) and all(hasattr(one, "hf_quantizer") for one in operations)


def is_quantised(module: nn.Module) -> bool:
    """Whether a module is a linear layer of somebody's own, or one whose weight is a tensor of another sort."""
    if "Linear" not in type(module).__name__ or not hasattr(module, "in_features"):
        return False
    weight = getattr(module, "weight", None)
    return type(module) is not nn.Linear or type(weight) is not nn.Parameter


def _plain(layer: Any, dtype: torch.dtype) -> nn.Linear:
    """Ask the layer for its weight: ``y = x W^T + b`` of the unit vectors x is W^T, whatever is inside.

    Every sum has one term that is not zero, so that it is exact in the type of the product.
    """
    device = next((one.device for one in [*layer.parameters(), *layer.buffers()]), torch.device("cpu"))
    bias = getattr(layer, "bias", None)
    with torch.no_grad(), torch.device(device):
        weight_IO = layer(torch.eye(layer.in_features, dtype=dtype))
        if bias is not None:
            weight_IO = weight_IO - bias
    with torch.device("meta"):
        made = nn.Linear(layer.in_features, weight_IO.shape[1], bias=bias is not None)
    made.weight = nn.Parameter(weight_IO.T.to(dtype).contiguous(), requires_grad=False)
    made.bias = nn.Parameter(bias.detach().to(dtype), requires_grad=False) if bias is not None else None
    return made
