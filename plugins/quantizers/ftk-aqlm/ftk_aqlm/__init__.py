"""AQLM (Egiazarian et al. 2024): groups of weights as sums of entries of learnt code books, about two bits each."""

from __future__ import annotations

from collections.abc import Iterator

import ftk


@ftk.hookimpl
def ftk_quantizers() -> Iterator[ftk.Quantizer]:
    yield ftk.Quantizer(
        "aqlm",
        stored_target="ftk_aqlm.products:adjust",
        methods=("aqlm",),
        requires=("aqlm",),
        extra="backend",
        excludes=("adapter_name_or_path>1",),
        summary="Models whose files are quantised with AQLM, about 2 bits",
    )
