"""Which parts of a model that sees or hears learn: its towers, its projector, its language model."""

from __future__ import annotations

from collections.abc import Iterator

import ftk


@ftk.options
class VlmOptions:
    """What stays as it is. Nothing of this concerns a model that only reads text. Defaults are LLaMA-Factory's."""

    freeze_vision_tower: bool = ftk.option(
        True, help="Leave what turns images, videos and sounds into features as it is, when a model has that."
    )
    freeze_multi_modal_projector: bool = ftk.option(
        True, help="Leave what stands between the towers and the language model as it is."
    )
    freeze_language_model: bool = ftk.option(
        False, help="Leave the language model with its embeddings and its output layer as it is, when a model has more."
    )

    def __post_init__(self) -> None:
        if self.freeze_vision_tower and self.freeze_multi_modal_projector and self.freeze_language_model:
            raise ValueError(
                "freeze_language_model: with freeze_vision_tower and freeze_multi_modal_projector nothing is left to "
                "learn. Set one of them to false"
            )


@ftk.hookimpl
def ftk_model_patches() -> Iterator[ftk.ModelPatch]:
    yield ftk.ModelPatch(
        "vlm",
        target="ftk_vlm.freezing:hold",
        options=VlmOptions,
        default=True,
        summary="Which parts of a model that sees or hears learn",
    )
