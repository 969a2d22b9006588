"""Liger's fused kernels in the place of a model's own operations."""

from __future__ import annotations

from collections.abc import Iterator

import ftk


@ftk.options(replaced=(ftk.Replaced("use_liger_kernel", by="enable_liger_kernel"),))
class LigerOptions:
    """Which kernels."""

    enable_liger_kernel: bool = ftk.option(False, help="Train with Liger's fused kernels (needs a GPU).")
    liger_kernel_config: dict[str, bool] | None = ftk.option(
        None, help="Which of Liger's kernels: {rope: true, swiglu: false}; unset is Liger's own choice."
    )


@ftk.hookimpl
def ftk_model_patches() -> Iterator[ftk.ModelPatch]:
    yield ftk.ModelPatch(
        "liger",
        config_target="ftk_liger.kernels:check",
        target="ftk_liger.kernels:apply",
        options=LigerOptions,
        switch="enable_liger_kernel",
        reads=("use_cpu",),
        requires=("liger_kernel",),
        extra="backend",
        excludes=("model_loader:unsloth",),
        summary="Liger's fused kernels, for every model type that Liger knows",
    )
