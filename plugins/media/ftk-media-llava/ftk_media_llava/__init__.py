"""Images for LLaVA 1.5 (Liu et al. 2023, arXiv:2310.03744) and LLaVA-NeXT."""

from __future__ import annotations

from collections.abc import Iterator

import ftk
from ftk_media import MediaOptions


@ftk.hookimpl
def ftk_media_processors() -> Iterator[ftk.MediaProcessor]:
    yield ftk.MediaProcessor(
        "llava",
        target="ftk_media_llava.images:llava",
        model_types=("llava",),
        options=MediaOptions,
        summary="Images for LLaVA 1.5: each becomes as many tokens as the vision tower has patches",
    )
    yield ftk.MediaProcessor(
        "llava_next",
        target="ftk_media_llava.images:llava_next",
        model_types=("llava_next",),
        options=MediaOptions,
        summary="Images for LLaVA-NeXT: the whole, and tiles in a grid that fits its shape",
    )
