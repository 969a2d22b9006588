"""How many bytes weights and checkpoints take, and whether a disk has them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from ftk_training.checks import NotApplicable

STATES = 2
"""Numbers that Adam keeps for each weight that learns, in float32."""


def weights(model: Any, *, learning_only: bool) -> int:
    """Bytes of the weights of a model, or of those that learn."""
    return sum(one.numel() * one.element_size() for one in model.parameters() if one.requires_grad or not learning_only)


def checkpoint(model: Any, *, adapter: bool) -> int:
    """Bytes of a checkpoint: what is saved of the model, and the optimizer's states."""
    learning = sum(one.numel() for one in model.parameters() if one.requires_grad)
    return weights(model, learning_only=adapter) + 4 * STATES * learning


def refuse_small_disk(model: Any, folder: Path) -> None:
    """Raise NotApplicable when two checkpoints and a result would not fit where ``folder`` is."""
    adapter = hasattr(model, "peft_config")
    needed = 2 * checkpoint(model, adapter=adapter) + weights(model, learning_only=adapter)
    free = shutil.disk_usage(folder).free
    if needed > 0.9 * free:
        raise NotApplicable(f"its files take {shown(needed)}, {shown(free)} are free in {folder}. Set TMPDIR to more")


def shown(size: float) -> str:
    """Bytes for people: ``1.5 GB``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
