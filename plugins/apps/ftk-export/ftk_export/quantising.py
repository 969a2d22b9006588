"""Formats of few bits that transformers makes while it loads: written plainly aside, loaded in few bits, saved."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ftk import PluginError

from ftk_export import ExportOptions
from ftk_export.writing import write_companions

if TYPE_CHECKING:
    from ftk.run import Run


def bits_of(run: Run, usual: int) -> int:
    """``export_quantization_bit``, or what the format takes without it."""
    return run.options(ExportOptions).export_quantization_bit or usual


def write_in_few_bits(model: Any, folder: Path, run: Run, config: Any) -> None:
    """Fill ``folder`` with the model quantised as ``config``, one of transformers' quantization configs, says.

    Raises PluginError with what the back end says.
    """
    size = f"{run.options(ExportOptions).export_size}GB"
    with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as plain:
        model.save_pretrained(plain, max_shard_size=size)
        try:
            few = type(model).from_pretrained(
                plain,
                quantization_config=config,
                dtype=model.dtype,
                device_map=str(model.device),
                local_files_only=True,
            )
            few.save_pretrained(folder, max_shard_size=size)
        except (ImportError, RuntimeError, ValueError, NotImplementedError) as cause:
            text = " ".join(str(cause).split())[:300]
            raise PluginError(f"{run.plan.one('export_format')!r} cannot quantise this model here: {text}") from cause
    write_companions(few, folder, run)
