"""AWQ (Lin et al. 2023): weights rounded in groups, scaled beforehand so that what activations use most loses least."""

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
        "awq",
        stored_target="ftk_awq:adjust",
        methods=("awq",),
        requires=("gptqmodel",),
        extra="backend",
        excludes=("adapter_name_or_path>1",),
        summary="Models whose files are quantised with AWQ, 4 bits",
    )


def adjust(run: Run, stored: Mapping[str, Any]) -> Mapping[str, Any]:
    """The stored config as it is.

    gptqmodel, which reads this format for transformers, wants two threads for loading and refuses to be imported where
    it may have one; its own variable says how many, and what a user has set there stays.
    """
    if (os.cpu_count() or 1) < 4:
        os.environ.setdefault(WORKERS, "2")
    return stored
