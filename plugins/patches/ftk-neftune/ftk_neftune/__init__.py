"""NEFTune: noise on the embeddings while training (Jain et al. 2023)."""

from __future__ import annotations

from collections.abc import Iterator

import ftk


@ftk.options
class NeftuneOptions:
    """How much noise."""

    neftune_noise_alpha: float | None = ftk.option(
        None, help="Scale of the NEFTune noise on the embeddings while training; unset is off.", minimum=0
    )


@ftk.hookimpl
def ftk_model_patches() -> Iterator[ftk.ModelPatch]:
    yield ftk.ModelPatch(
        "neftune",
        target="ftk_neftune.noise:add_noise",
        options=NeftuneOptions,
        switch="neftune_noise_alpha",
        summary="Noise on the embeddings while training (NEFTune)",
    )
