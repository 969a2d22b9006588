"""What each way to train lets learn, and the bytes that it needs: weights, gradients, AdamW's state, the saved result.

    python tests/benchmarks/method_bytes.py [HIDDEN_SIZE] [NUM_LAYERS]

A random Llama as a run makes it ready, then one real step, so that the result is what a user gets. Weights are counted
by their storage, gradients and AdamW's two moments by what learns. None of it depends on how busy a machine is.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from ftk import PluginError
from ftk.run import Run
from ftk.testing.runs import plan_in, run_in

LORA = {"finetuning_type": "lora"}
NF4 = {"quantization_bit": 4, "bf16": True}
CASES: dict[str, dict[str, Any]] = {
    "full": {"finetuning_type": "full"},
    "full, pure_bf16": {"finetuning_type": "full", "pure_bf16": True},
    "freeze, last 2 layers": {"finetuning_type": "freeze"},
    "LoRA, rank 8": LORA,
    "LoRA, rank 64": {**LORA, "lora_rank": 64},
    "LoRA, rank 8, bf16": {**LORA, "bf16": True},
    "DoRA, rank 8": {**LORA, "use_dora": True},
    "PiSSA, rank 8": {**LORA, "pissa_init": True},
    "OFT, blocks of 32": {"finetuning_type": "oft"},
    "QLoRA, rank 8, nf4": {**LORA, **NF4},
    "LoftQ, rank 8, nf4": {**LORA, **NF4, "loftq_init": True},
    "QOFT, blocks of 32, nf4": {"finetuning_type": "oft", **NF4},
}


def storages(model: torch.nn.Module) -> int:
    tensors = [*model.parameters(), *model.buffers()]
    return sum({one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in tensors}.values())


def measure(name: str, settings: dict[str, Any], folder: Path) -> Iterator[float]:
    """(values that learn, MB of weights, of gradients, of AdamW's state, of the saved weights)."""
    run = Run(plan_in(folder, model_name_or_path=name, **settings))
    run.tokens  # noqa: B018 (what a run asks for first)
    model = run.model(trainable=True)
    learning = [one for one in model.parameters() if one.requires_grad]
    values = sum(one.numel() for one in learning)
    gradients = sum(one.numel() * one.element_size() for one in learning)
    yield from (values, storages(model) / 1e6, gradients / 1e6, 2 * gradients / 1e6)
    with redirect_stdout(StringIO()):
        finished = run_in(folder, model_name_or_path=name, max_steps=1, save_strategy="no", **settings)
    yield sum(file.stat().st_size for file in finished.folder.rglob("*.safetensors")) / 1e6


def main() -> None:
    logging.disable(logging.WARNING)
    hidden, layers = (int(word) for word in [*sys.argv[1:], *("512", "4")[len(sys.argv) - 1 :]])
    fields = f"hidden_size={hidden}&num_hidden_layers={layers}&intermediate_size={hidden * 11 // 4}"
    name = f"ftk://random/llama?{fields}&num_attention_heads=8&num_key_value_heads=8&head_dim={hidden // 8}"
    titles = ("method", "learns", "share", "weights, MB", "gradients, MB", "AdamW's state, MB", "result, MB")
    print(f"{name}\n\n| {' | '.join(titles)} |\n{'|---' * len(titles)}|")
    whole = 0.0
    for label, settings in CASES.items():
        try:
            with tempfile.TemporaryDirectory() as folder:
                learns, *sizes = measure(name, settings, Path(folder))
        except PluginError as missing:
            print(f"| {label} | {missing} | | | | | |", flush=True)
            continue
        whole = whole or learns  # full is the first
        print(
            f"| {label} | {learns:,} | {learns / whole:.2%} | {' | '.join(f'{size:.2f}' for size in sizes)} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
