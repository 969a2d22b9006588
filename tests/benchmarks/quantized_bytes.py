"""Bytes that each quantiser keeps for a weight, all scales and tables counted, and how far off the weights are.

    python tests/benchmarks/quantized_bytes.py [HIDDEN_SIZE] [NUM_LAYERS]

A random Llama in bfloat16 is loaded as a run would load it. Counted is every tensor of a quantised layer, by its
storage; bits are those over the number of weights. The error is ||W - W'|| / ||W|| over all quantised layers, W' what
they compute with. Neither depends on how busy a machine is. Quantisers that need a GPU or files of their own are left
out, and of one that is not installed the table says what to install.
"""

from __future__ import annotations

import gc
import logging
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from ftk import PluginError
from ftk.run import Run
from ftk.testing.runs import plan_in

BNB = {"quantization_method": "bnb", "quantization_bit": 4}
CASES: dict[str, dict[str, Any]] = {
    "bfloat16": {},
    "bnb, LLM.int8": {**BNB, "quantization_bit": 8},
    "bnb, nf4": {**BNB, "double_quantization": False},
    "bnb, nf4, double quantisation": BNB,
    "bnb, fp4, double quantisation": {**BNB, "quantization_type": "fp4"},
    **{f"hqq, {bits} bits": {"quantization_method": "hqq", "quantization_bit": bits} for bits in (8, 6, 5, 4, 3, 2, 1)},
    "hqq, 2 bits, groups of 16": {"quantization_method": "hqq", "quantization_bit": 2, "hqq_group_size": 16},
    "torchao, int8": {"quantization_method": "torchao", "quantization_bit": 8},
    "torchao, fp8": {"quantization_method": "torchao", "quantization_bit": 8, "torchao_type": "fp8"},
    "quanto, 8 bits": {"quantization_method": "quanto", "quantization_bit": 8},
}


def tensors_of(thing: Any, depth: int = 6) -> Iterator[torch.Tensor]:
    """Every tensor that can be reached from a layer; those of many parts, part by part."""
    if depth == 0 or thing is None or isinstance(thing, str | int | float | type):
        return
    if isinstance(thing, torch.Tensor):
        if hasattr(thing, "__tensor_flatten__"):
            yield from tensors_of([getattr(thing, name) for name in thing.__tensor_flatten__()[0]], depth - 1)
            return
        yield thing
        yield from tensors_of(vars(thing), depth - 1)
    elif isinstance(thing, dict):
        yield from tensors_of(list(thing.values()), depth)
    elif isinstance(thing, list | tuple):
        for one in thing:
            yield from tensors_of(one, depth - 1)
    elif hasattr(thing, "__dict__") and type(thing).__module__.split(".")[0] not in ("transformers", "ftk"):
        yield from tensors_of(vars(thing), depth - 1)


def bytes_of(layer: torch.nn.Module) -> int:
    """Of the storages behind all tensors of a layer, each counted once."""
    storages = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in tensors_of(layer)}
    return sum(storages.values())


def load(name: str, settings: dict[str, Any], folder: Path) -> tuple[Run, Any]:
    run = Run(plan_in(folder, model_name_or_path=name, finetuning_type="lora", bf16=True, **settings))
    run.tokens  # noqa: B018 (what a run asks for first)
    return run, run._loader.load_model(run)


def layers_of(model: Any) -> dict[str, torch.nn.Module]:
    """The linear layers of the blocks: those that quantisers take."""
    return {
        name: one
        for name, one in model.named_modules()
        if name.endswith(("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"))
    }


def measure(name: str, settings: dict[str, Any], plain: dict[str, torch.Tensor]) -> tuple[float, float]:
    """(bits for each weight, relative error)."""
    with tempfile.TemporaryDirectory() as folder:
        run, model = load(name, settings, Path(folder))
        size = sum(bytes_of(layer) for layer in layers_of(model).values())
        weights = {key: one.weight.float() for key, one in layers_of(run.dequantized(model)).items()}
    off = sum((weights[key] - weight).pow(2).sum().item() for key, weight in plain.items())
    whole = sum(weight.pow(2).sum().item() for weight in plain.values())
    return 8 * size / sum(weight.numel() for weight in plain.values()), (off / whole) ** 0.5


def main() -> None:
    logging.disable(logging.WARNING)
    hidden, layers = (int(word) for word in [*sys.argv[1:], *("512", "2")[len(sys.argv) - 1 :]])
    fields = f"hidden_size={hidden}&num_hidden_layers={layers}&intermediate_size={hidden * 11 // 4}&dtype=bfloat16"
    name = f"ftk://random/llama?{fields}&num_attention_heads=8&num_key_value_heads=8&head_dim={hidden // 8}"
    with tempfile.TemporaryDirectory() as folder:
        plain = {key: one.weight.float() for key, one in layers_of(load(name, {}, Path(folder))[1]).items()}
    count = sum(weight.numel() for weight in plain.values())
    print(f"{name}\n{count:,} weights in quantised layers\n\n| quantiser | bits for a weight | error |\n|---|---|---|")
    for label, settings in CASES.items():
        try:
            bits, error = measure(name, settings, plain)
        except PluginError as missing:
            print(f"| {label} | {missing} | |", flush=True)
            continue
        print(f"| {label} | {bits:.3f} | {error:.4f} |", flush=True)
        gc.collect()


if __name__ == "__main__":
    main()
