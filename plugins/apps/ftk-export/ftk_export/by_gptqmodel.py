"""Plain weights aside, rounded by gptqmodel with some texts before it, saved: what its formats have in common."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from ftk import PluginError

from ftk_export.calibration import texts
from ftk_export.quantising import bits_of
from ftk_export.writing import write_companions

if TYPE_CHECKING:
    from ftk.run import Run

Load = Callable[[str, dict[str, int], str], Any]
"""``load(folder, sizes, device)``: gptqmodel's model, to be rounded to the ``bits`` and ``group_size`` of ``sizes``."""
GROUPS = (128, 64, 32)
"""How many weights of a row may share a scale; the largest that divides every row is taken."""


def round_off(model: Any, folder: Path, run: Run, method: str, load: Load) -> None:
    """Write the model in few bits. Raises PluginError when gptqmodel cannot do it here."""
    if (os.cpu_count() or 1) < 4:
        os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")  # it refuses to be imported with one
    seen = [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in texts(run)]
    sizes = {"bits": bits_of(run, usual=4), "group_size": group_size(model)}
    with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as plain:
        model.save_pretrained(plain)
        run.tokenizer.save_pretrained(plain)
        try:
            few = load(plain, sizes, "cuda" if torch.cuda.is_available() else "cpu")
            few.quantize(seen, batch_size=1)
            few.save(str(folder))
        except (RuntimeError, ValueError, NotImplementedError, TypeError, AssertionError) as cause:
            raise PluginError(f"export_format: {method}: gptqmodel: {' '.join(str(cause).split())[:300]}") from cause
    write_companions(model, folder, run)


def group_size(model: Any) -> int:
    """-1, a scale for each row, where none fits."""
    widths = [layer.in_features for layer in model.modules() if isinstance(layer, torch.nn.Linear)]
    return next((size for size in GROUPS if not any(width % size for width in widths)), -1)
