"""What a run saves beside its adapter: the model beneath, when a variant has changed it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftk import rundir

if TYPE_CHECKING:
    from ftk.run import Run

BASE = "base_model"
"""Folder in the run directory."""

ADAPTERS_OWN = (".lora_", ".modules_to_save.", ".trainable_tokens_")
WRAPPERS = (".base_layer", ".original_module")


def point_to_base(model: Any, run: Run, folder: Path) -> None:
    """Save the model beneath the adapter in the run directory, once, and make an adapter in ``folder`` name it.

    ``ftk chat`` on the run directory then opens both, and so does peft's ``AutoPeftModel``.
    Raises CheckpointError when the disk is full.
    """
    from ftk_peft.making import read_config, write_config

    target = run.once("ftk_peft.base_model", lambda: _save_base(model, run))
    write_config(folder, {**read_config(folder), "base_model_name_or_path": str(target)})
    run.record(base=BASE)


def _save_base(model: Any, run: Run) -> Path:
    target, base = run.output_dir / BASE, model.get_base_model()
    with rundir.written_aside(target) as aside:
        base.save_pretrained(aside, state_dict=plain_weights(base.state_dict()))
        (run.processor or run.tokenizer).save_pretrained(aside)
    return target


def plain_weights(weights: dict[str, Any]) -> dict[str, Any]:
    """The weights of a model with an adapter beside it, without the adapter, by the names that the model itself has."""
    found = {}
    for name, value in weights.items():
        if not any(mark in f".{name}" for mark in ADAPTERS_OWN):
            for wrapper in WRAPPERS:
                name = name.replace(wrapper, "")
            found[name] = value
    return found
