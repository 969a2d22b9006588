"""HQQ: half-quadratic quantisation (Badri and Shaji 2023), which needs no data to calibrate on."""

from __future__ import annotations

from collections.abc import Iterator

import ftk


@ftk.options
class HqqOptions:
    """How many weights share a scale."""

    hqq_group_size: int = ftk.option(
        64, help="Weights that share a scale and a zero point; fewer are more exact and larger.", minimum=8
    )


@ftk.hookimpl
def ftk_quantizers() -> Iterator[ftk.Quantizer]:
    yield ftk.Quantizer(
        "hqq",
        target="ftk_hqq.loading:configure",
        stored_target="ftk_hqq.loading:adjust",
        bits=(1, 2, 3, 4, 5, 6, 8),
        methods=("hqq",),
        options=HqqOptions,
        requires=("hqq",),
        extra="backend",
        excludes=("adapter_name_or_path>1",),
        summary="Half-quadratic quantisation, 1 to 8 bits without calibration",
    )
