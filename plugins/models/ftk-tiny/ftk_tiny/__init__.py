"""Models for trying things out: a tiny chat model inside this package, and random ones of any family.

``ftk://tiny-chat`` talks a little; ``ftk://random/qwen2`` only has the shape of a model, for tests.
"""

from __future__ import annotations

from collections.abc import Iterator

import ftk


@ftk.hookimpl
def ftk_model_loaders() -> Iterator[ftk.ModelLoader]:
    yield ftk.ModelLoader(
        "tiny",
        schemes=("ftk",),
        locate="ftk_tiny.locating:locate",
        summary="ftk://tiny-chat, a model inside the package, and ftk://random/FAMILY",
    )
