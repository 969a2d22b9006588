"""HQQ's layer, so that it follows its model from device to device, and a place for one that is being loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from hqq.core import quantize as upstream
from torch import nn

FLOATS = ("scale", "zero")
FIELDS = (
    "W_q", "nbits", "group_size", "shape", "scale", "zero", "axis", "packing", "unpack_view_dtype", "view_as_float",
    "quant_scale", "quant_zero", "offload_meta", "encoded_state_dict", "stores_quant_config", "channel_wise",
    "optimize", "round_zero", "compute_dtype",
)  # fmt: skip
"""What the files hold of one layer: its packed weights, scales and zero points, and how to read them."""


class HQQLinear(upstream.HQQLinear):
    """``y = x W^T + b`` with W = (W_q - zero) * scale in groups. W_q (groups, group) holds several weights a byte.

    Called as upstream's is, because peft knows that by its name.
    """

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> HQQLinear:
        """Move what is no parameter, too; upstream leaves it behind. Types stay: that of the products is set apart."""
        super()._apply(fn, recurse)
        for name in FLOATS:
            self.meta[name] = self.meta[name].to(fn(self.meta[name]).device)
        self.device = self.W_q.device
        return self

    def cuda(self, device: Any) -> HQQLinear:
        """Upstream's way to any device. transformers calls it for ``model.to(torch.bfloat16)``, too, with the type."""
        if not isinstance(device, torch.dtype):
            return super().cuda(device)
        self.computes_in(device)
        return self

    def computes_in(self, dtype: torch.dtype) -> None:
        """Make products, scales and zero points of one type."""
        self.compute_dtype = self.meta["compute_dtype"] = dtype
        for name in FLOATS:
            self.meta[name] = self.meta[name].to(dtype)

    @property
    def weight(self) -> torch.Tensor:
        """Nothing, of the right type and device: some models ask their layers for those."""
        return torch.empty(0, dtype=self.compute_dtype, device=self.W_q.device)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """As upstream writes it; a bias is detached, so that it is saved like any other tensor."""
        state = super().state_dict(*args, **kwargs)
        return {key: value.detach() if isinstance(value, torch.Tensor) else value for key, value in state.items()}


class Slot(nn.Module):
    """Takes the tensors of a stored layer by their names until all are there; of no use otherwise."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        for name in (*FIELDS, "bias") if bias else FIELDS:
            self.register_buffer(name, torch.empty(0))


def quantised(weight_OI: torch.Tensor, bias_O: nn.Parameter | None, config: dict[str, Any]) -> HQQLinear:
    """The layer with this weight in few bits, on its device, computing in its type.

    Where a group would not go into the weight evenly, the groups of this layer are smaller.
    """
    with _on(weight_OI.device):
        made = HQQLinear.from_weights(
            weight_OI, None, fitting(config, weight_OI.numel()), weight_OI.dtype, str(weight_OI.device)
        )
    made.bias = bias_O
    return made


def fitting(config: dict[str, Any], numel: int) -> dict[str, Any]:
    """The config with the largest halving of its group size that divides ``numel``."""
    weights = dict(config["weight_quant_params"])
    while weights["group_size"] and numel % weights["group_size"]:
        weights["group_size"] //= 2
    return {**config, "weight_quant_params": weights}


def restored(slot: Slot, dtype: torch.dtype) -> HQQLinear:
    """The layer whose tensors a slot has taken, computing in ``dtype``."""
    made = HQQLinear(None, None, compute_dtype=dtype, device=str(slot.W_q.device))
    stored = {name: value for name, value in slot.named_buffers() if name != "bias"}
    with _on(slot.W_q.device):
        made.load_state_dict(stored)
    made.computes_in(dtype)
    bias = getattr(slot, "bias", None)
    made.bias = nn.Parameter(bias, requires_grad=False) if bias is not None else None
    return made


def plain(layer: HQQLinear) -> nn.Linear:
    """A linear layer with the weights that HQQ's computes with."""
    with torch.device("meta"):
        made = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
    made.weight = nn.Parameter(layer.dequantize().detach(), requires_grad=False)
    made.bias = layer.bias
    return made


@contextmanager
def _on(device: torch.device) -> Iterator[None]:
    """Upstream asks for the current CUDA device where there is one."""
    if device.type != "cuda":
        yield
        return
    with torch.cuda.device(device):
        yield
