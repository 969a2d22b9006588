"""Bytes of optimizer state and of gradients that each optimizer keeps, beside AdamW's.

    python tests/benchmarks/optimizer_bytes.py [HIDDEN_SIZE] [NUM_LAYERS]

One forward, backward and step on a random Llama. Counted are the tensors of the optimizer's state after the step, and
the gradients that exist between backward and step; both are the same on every device and in every round.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from ftk.run import Run
from ftk.testing.runs import plan_in

LAYERWISE = {"gradient_accumulation_steps": 1}
CASES: dict[str, dict[str, Any]] = {
    "AdamW": {},
    "Adam-mini": {"use_adam_mini": True},
    "Muon": {"use_muon": True},
    "GaLore, rank 16": {"use_galore": True},
    "GaLore, rank 128": {"use_galore": True, "galore_rank": 128},
    "GaLore, rank 128, 8 bits": {"use_galore": True, "galore_rank": 128, "optim": "adamw_8bit"},
    "GaLore, rank 128, Adafactor": {"use_galore": True, "galore_rank": 128, "optim": "adafactor"},
    "GaLore, rank 128, layerwise": {"use_galore": True, "galore_rank": 128, "galore_layerwise": True, **LAYERWISE},
    "APOLLO, rank 16": {"use_apollo": True},
    "APOLLO, rank 128": {"use_apollo": True, "apollo_rank": 128},
    "APOLLO-Mini (rank 1)": {"use_apollo": True, "apollo_rank": 1, "apollo_scale_type": "tensor"},
    "APOLLO, rank 128, layerwise": {"use_apollo": True, "apollo_rank": 128, "apollo_layerwise": True, **LAYERWISE},
    "BAdam, layer": {"use_badam": True},
    "BAdam, ratio 0.05": {"use_badam": True, "badam_mode": "ratio"},
}


def size(tensors: Any) -> int:
    return sum(one.numel() * one.element_size() for one in tensors)


def measure(model_name: str, settings: dict[str, Any], folder: Path) -> tuple[int, int, int]:
    """(values of the model, bytes of state, bytes of gradients)."""
    run = Run(plan_in(folder, model_name_or_path=model_name, finetuning_type="full", **settings))
    model = run.model(trainable=True)
    total = sum(weight.numel() for weight in model.parameters())
    optimizer = run.optimizer(model) or torch.optim.AdamW(model.parameters())
    ids = torch.arange(64)[None]
    model(input_ids=ids, labels=ids).loss.backward()
    gradients = size(weight.grad for weight in model.parameters() if weight.grad is not None)
    optimizer.step()
    held = (value for state in optimizer.state.values() for value in state.values() if isinstance(value, torch.Tensor))
    return total, size(held), gradients


def main() -> None:
    logging.disable(logging.INFO)
    hidden, layers = (int(word) for word in [*sys.argv[1:], *("512", "4")[len(sys.argv) - 1 :]])
    fields = f"hidden_size={hidden}&num_hidden_layers={layers}&intermediate_size={hidden * 11 // 4}"
    name = f"ftk://random/llama?{fields}&num_attention_heads=8&num_key_value_heads=8&head_dim={hidden // 8}"
    print(f"{name}\n\n| optimizer | state, MB | bytes per value | of AdamW's | gradients at the step, MB |")
    print("|---|---|---|---|---|")
    reference = 0
    for label, settings in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            total, state, gradients = measure(name, settings, Path(folder))
        reference = reference or state
        shown = f"{state / 1e6:.1f} | {state / total:.2f} | {state / reference:.1%} | {gradients / 1e6:.1f}"
        print(f"| {label} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
