"""Images for a LLaVA model: placeholders to tokens while rows are made, files to pixels for a batch."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ftk import DataError, ModelError
from ftk_media.files import shown
from ftk_media.images import Images, blank_image
from ftk_media.tokens import check_counts, untrained

from ftk_media_llava.counting import Size, llava_next_tokens, llava_tokens

if TYPE_CHECKING:
    from ftk.run import Run
    from ftk.types import Media

NEEDED = ("image_processor", "image_token", "image_token_id", "patch_size", "vision_feature_select_strategy",
          "num_additional_image_tokens")  # fmt: skip
"""What the processor must say so that tokens can be counted."""


class LlavaImages:
    """A :class:`ftk.types.MediaEncoder`.

    blanks: an image for batches that show none while those of other processes do.
    num_tokens: the processor and an image's size → how many tokens the image becomes.
    """

    def __init__(self, run: Run, num_tokens: Callable[[Any, Size], int]) -> None:
        self.processor = run.processor
        lacking = [name for name in NEEDED if getattr(self.processor, name, None) is None]
        if lacking:
            where = run.plan.where("model_name_or_path")
            if self.processor is None:
                raise ModelError(f"{where}: has no processor_config.json. Take the one of the model it was made from")
            kind = type(self.processor).__name__
            raise ModelError(f"{where}: its {kind} does not say {', '.join(lacking)}. Add it to processor_config.json")
        self.images = Images.of(run)
        self.blanks = (blank_image(),)
        self.num_tokens = num_tokens

    @property
    def placeholders(self) -> Mapping[str, str]:
        return {"image": self.processor.image_token}

    def expand(self, media: Sequence[Media]) -> Sequence[str]:
        return [self.processor.image_token * self.num_tokens(self.processor, self._size(one)) for one in media]

    def encode(self, batch: Mapping[str, Any], media: Sequence[Sequence[Media]]) -> Mapping[str, Any]:
        """``pixel_values`` of the batch's images in the order of their tokens; with LLaVA-NeXT ``image_sizes``, too.

        Raises DataError when an image is broken, or has another number of tokens in the row than it should.
        """
        token = self.processor.image_token_id
        read = [[self.images.read(one) for one in shows] for shows in media]
        counts = [[self.num_tokens(self.processor, image.size) for image in images] for images in read]
        check_counts(batch["input_ids"], token, media, counts)
        images = [image for row in read for image in row]
        pixels = self.processor.image_processor(images=images, return_tensors="pt") if images else {}
        return {**pixels, **untrained(batch, {token})}

    def fingerprint(self) -> str:
        """What the number of tokens depends on beside the image; part of the key under which rows are cached."""
        facts = {name: str(getattr(self.processor, name)) for name in NEEDED[1:]}
        facts["image_processor"] = self.processor.image_processor.to_json_string()
        return json.dumps([self.num_tokens.__name__, facts, self.images.fingerprint()], sort_keys=True)

    def _size(self, medium: Media) -> Size:
        if medium.kind != "image":
            raise DataError(f"{shown(medium)}: is of kind {medium.kind}, and this model takes images alone")
        return self.images.size(medium)


llava = partial(LlavaImages, num_tokens=llava_tokens)
llava_next = partial(LlavaImages, num_tokens=llava_next_tokens)
