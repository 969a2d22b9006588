"""placeholder docstring"""
from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from ftk import specs
    from ftk.run import Run
    from ftk.types import Metrics

hookspec = pluggy.HookspecMarker("ftk")
hookimpl = pluggy.HookimplMarker("ftk")


@hookspec
def ftk_model_loaders() -> Iterable[specs.ModelLoader]:
    """x"""
    return ()


@hookspec
def ftk_quantizers() -> Iterable[specs.Quantizer]:
    """x"""
    return ()


@hookspec
def ftk_model_patches() -> Iterable[specs.ModelPatch]:
    """x"""
    return ()


@hookspec
def ftk_adapters() -> Iterable[specs.Adapter]:
    """x"""
    return ()


@hookspec
def ftk_optimizers() -> Iterable[specs.Optimizer]:
    """x"""
    return ()


@hookspec
def ftk_dataset_sources() -> Iterable[specs.DatasetSource]:
    """x"""
    return ()


@hookspec
def ftk_dataset_converters() -> Iterable[specs.DatasetConverter]:
    """x"""
    return ()


@hookspec
def ftk_chat_templates() -> Iterable[specs.ChatTemplate]:
    """x"""
    return ()


@hookspec
def ftk_media_processors() -> Iterable[specs.MediaProcessor]:
    """x"""
    return ()


@hookspec
def ftk_trainers() -> Iterable[specs.Trainer]:
    """x"""
    return ()


@hookspec
def ftk_inference_engines() -> Iterable[specs.Engine]:
    """x"""
    return ()


@hookspec
def ftk_trackers() -> Iterable[specs.Tracker]:
    """x"""
    return ()


@hookspec
def ftk_launchers() -> Iterable[specs.Launcher]:
    """x"""
    return ()


@hookspec
def ftk_commands() -> Iterable[specs.Command]:
    """x"""
    return ()


@hookspec
def ftk_run_started(run: Run) -> None:
    """x"""


@hookspec
def ftk_step_finished(run: Run, step: int, metrics: Metrics) -> None:
    """x"""


@hookspec
def ftk_checkpoint_saved(run: Run, step: int, path: Path) -> None:
    """x"""


@hookspec
def ftk_run_finished(run: Run, error: BaseException | None) -> None:
    """x"""
