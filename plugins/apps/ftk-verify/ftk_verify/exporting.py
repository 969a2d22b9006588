"""The last part of a rehearsal: the result leaves as a model that transformers alone can load.

With the command ``export`` installed that is what is tried, as a user would type it: ``ftk export RUN --export_dir
FOLDER``. Without it the merged model is saved.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click
from ftk import ModelError
from transformers import AutoConfig, AutoTokenizer

from ftk_verify.bench import muted

if TYPE_CHECKING:
    from ftk.registry import Registry
    from ftk.run import Run


def export(registry: Registry, result: Path, folder: Path, opened: Callable[[], Run]) -> str:
    """Export ``result`` into ``folder`` and look at what is there; returns a line for people.

    Raises what the export raises, ModelError when config, weights or tokenizer are missing.
    """
    command = registry.specs("command").get("export")
    with muted():
        if command is None:
            run = opened()
            run.model(trainable=False).save_pretrained(folder)
            (run.processor or run.tokenizer).save_pretrained(folder)
        else:
            target = command.load()
            assert isinstance(target, click.Command)
            target.main([str(result), "--export_dir", str(folder)], standalone_mode=False)
        _check(folder)
    return "ftk export" if command else "merged and saved; ftk export is not installed"


def _check(folder: Path) -> None:
    try:
        AutoConfig.from_pretrained(folder, local_files_only=True)
        AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as cause:
        raise ModelError(f"the export cannot be loaded: {' '.join(str(cause).split())}") from cause
    if not any(folder.glob("*.safetensors")):
        raise ModelError("the export holds no weights")
