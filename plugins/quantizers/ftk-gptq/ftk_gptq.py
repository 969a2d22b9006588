"""GPTQ (Frantar et al. 2022): weights rounded one after the other, each making up for the errors of those before."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import ftk

if TYPE_CHECKING:
    from ftk.run import Run

WORKERS = "GPTQMODEL_CPU_WORKERS"


@ftk.hookimpl
def ftk_quantizers() -> Iterator[ftk.Quantizer]:
    yield ftk.Quantizer(
        "gptq",
        stored_target="ftk_gptq:adjust",
        methods=("gptq",),
        requires=("gptqmodel", "optimum.gptq"),
        extra="backend",
        excludes=("adapter_name_or_path>1",),
        summary="Models whose files are quantised with GPTQ, 2 to 8 bits",
    )


def adjust(run: Run, stored: Mapping[str, Any]) -> dict[str, Any]:
    """The stored config without what it was calibrated on.

    gptqmodel wants two threads for loading and refuses to be imported where it may have one; its own variable says how
    many, and what a user has set there stays.
    """
    if (os.cpu_count() or 1) < 4:
        os.environ.setdefault(WORKERS, "2")
    return {key: value for key, value in stored.items() if key not in ("dataset", "tokenizer")}
