"""HQQ through transformers: its quantizer where it has one that works, else the one here.

transformers knows HQQ's config but, since its loader was rewritten for version 5, not how to apply it ("not available
yet"). The quantizer here fills that place with the loader's own hooks: each weight is quantised as soon as it is read,
so that the model is never whole in sixteen bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import HqqConfig
from transformers.core_model_loading import ConversionOps
from transformers.quantizers import HfQuantizer
from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING
from transformers.quantizers.quantizers_utils import should_convert_module

from ftk_hqq import HqqOptions
from ftk_hqq.layer import HQQLinear, Slot, plain, quantised, restored

if TYPE_CHECKING:
    from ftk.run import Run


def configure(run: Run) -> HqqConfig:
    """Groups of ``hqq_group_size`` weights along a row; without the output layer, which is decided with the model."""
    _fill_the_gap()
    return HqqConfig(
        nbits=run.value("quantization_bit"),
        group_size=run.options(HqqOptions).hqq_group_size,
        axis=1,
        skip_modules=None,
    )


def adjust(run: Run, stored: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config of a stored model as it is; whoever opens one needs the quantizer."""
    _fill_the_gap()
    return stored


def _fill_the_gap() -> None:
    theirs = AUTO_QUANTIZER_MAPPING["hqq"]
    if theirs.get_quantize_ops is HfQuantizer.get_quantize_ops:
        AUTO_QUANTIZER_MAPPING["hqq"] = HqqQuantizer


class HqqQuantizer(HfQuantizer):
    """Puts HQQ's layers in the place of linear ones, while weights are read or from files that hold them."""

    def _process_model_before_weight_loading(self, model: Any, dtype: Any = None, **kwargs: Any) -> Any:
        config = self.quantization_config
        spared = self.get_modules_to_not_convert(model, config.skip_modules, model._keep_in_fp32_modules)
        config.skip_modules = sorted(spared)
        self.dtype = dtype
        self.chosen = {
            name
            for name, module in model.named_modules()
            if type(module) is nn.Linear and should_convert_module(name, spared)
        }
        if self.pre_quantized:
            for name in self.chosen:
                model.set_submodule(name, Slot(model.get_submodule(name).bias is not None))
        return model

    def param_needs_quantization(self, model: Any, param_name: str, **kwargs: Any) -> bool:
        name, _, tensor = param_name.rpartition(".")
        return tensor == "weight" and name in self.chosen

    def get_quantize_ops(self) -> ConversionOps:
        return Quantise(self)

    def _process_model_after_weight_loading(self, model: Any, **kwargs: Any) -> Any:
        if self.pre_quantized:
            for name in self.chosen:
                model.set_submodule(name, restored(model.get_submodule(name), self.dtype or model.dtype))
        return model

    def _dequantize(self, model: Any, dtype: Any = None) -> Any:
        for name, module in list(model.named_modules()):
            if isinstance(module, HQQLinear):
                model.set_submodule(name, plain(module))
        return model

    def param_element_size(self, model: Any, param_name: str, param: torch.Tensor) -> float:
        """Bytes of one weight, for whoever spreads a model over devices."""
        if not self.param_needs_quantization(model, param_name):
            return super().param_element_size(model, param_name, param)
        bits = self.quantization_config.quant_config["weight_quant_params"]["nbits"]
        return {1: 0.125, 2: 0.25, 3: 0.4, 4: 0.5}.get(bits, 1.0)

    def is_serializable(self) -> bool:
        return True

    @property
    def is_trainable(self) -> bool:
        return True


class Quantise(ConversionOps):
    """One weight as it has been read → HQQ's layer in the place of the linear one. Nothing is left to be set."""

    def __init__(self, quantizer: HqqQuantizer) -> None:
        self.quantizer = quantizer

    def convert(
        self,
        input_dict: dict[str, Any],
        model: Any = None,
        full_layer_name: str = "",
        missing_keys: Any = None,
        **_: Any,
    ) -> dict[str, torch.Tensor]:
        (value,) = input_dict.values()
        weight = value[0] if isinstance(value, list) else value
        name = full_layer_name.rpartition(".")[0]
        bias = model.get_submodule(name).bias
        made = quantised(weight, bias, self.quantizer.quantization_config.quant_config)
        made._is_hf_initialized = True
        model.set_submodule(name, made)
        if missing_keys is not None:
            missing_keys.discard(full_layer_name)
        return {}
