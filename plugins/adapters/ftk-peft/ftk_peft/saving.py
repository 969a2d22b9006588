"""What a run saves beside its adapter: the model beneath, when a variant has changed it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftk import rundir
from ftk_training.quick_imports import quick_imports
from ftk_training.result import note_files

from ftk_peft import BASE
from ftk_peft.making import read_config, write_config

with quick_imports():
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

if TYPE_CHECKING:
    from ftk.run import Run


def point_to_base(model: Any, run: Run, folder: Path) -> None:
    """Save the model beneath the adapter in the run directory, once, and make an adapter in ``folder`` name it.

    ``ftk chat`` on the run directory then opens both, and so does peft's ``AutoPeftModel``.
    Raises CheckpointError when the disk is full.
    """
    target = run.once("ftk_peft.base_model", lambda: _save_base(model, run))
    write_config(folder, {**read_config(folder), "base_model_name_or_path": str(target)})
    run.record(base=BASE)


def _save_base(model: Any, run: Run) -> Path:
    target = run.output_dir / BASE
    with rundir.written_aside(target) as aside, bare(model) as base:
        base.save_pretrained(aside)
        (run.processor or run.tokenizer).save_pretrained(aside)
    note_files(run, (path.relative_to(run.output_dir).as_posix() for path in target.rglob("*") if path.is_file()))
    return target


@contextmanager
def bare(model: Any) -> Iterator[Any]:
    """The model beneath an adapter, as it was loaded but for its weights, while the block lasts.

    Quantisers write a model out by its modules, so handing ``save_pretrained`` other names for the weights will not do.
    """
    base, wrapped = model.get_base_model(), []
    for name, module in base.named_modules():
        inner = _inner(module)
        if inner is not None and not any(name.startswith(f"{outer}.") for outer, _, _ in wrapped):
            wrapped.append((name, module, inner))
    try:
        for name, _, inner in wrapped:
            _put(base, name, inner)
        yield base
    finally:
        for name, module, _ in wrapped:
            _put(base, name, module)


def _inner(module: Any) -> Any:
    if isinstance(module, BaseTunerLayer):
        return module.get_base_layer()
    return module.original_module if isinstance(module, AuxiliaryTrainingWrapper) else None


def _put(model: Any, name: str, module: Any) -> None:
    place, _, last = name.rpartition(".")
    model.get_submodule(place)._modules[last] = module
