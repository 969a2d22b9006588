"""From ftk's media to what vLLM's processors take: images as the run's own media plugin opens them."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from ftk import DataError, Media
from ftk_media.files import Files, frames, shown
from ftk_media.images import Images

if TYPE_CHECKING:
    from ftk.run import Run


class Showing:
    """Opens the media of one run. Images are turned, cut to size and in RGB as in training.

    A video is its frames, or a file that vLLM's own reader opens, as sounds are; the number of frames is then vLLM's
    (``vllm_config: {media_io_kwargs: {video: {num_frames: 32}}}``).
    """

    def __init__(self, run: Run, io: dict[str, Any] | None = None) -> None:
        self._images, self._files, self._io = Images.of(run), Files.of(run), io

    def data(self, media: Sequence[Media]) -> dict[str, Any]:
        """``multi_modal_data``: kind → its media in order. Raises DataError for what cannot be opened."""
        made: dict[str, list[Any]] = {}
        for one in media:
            made.setdefault(one.kind, []).append(self._opened(one))
        return made

    def _opened(self, medium: Media) -> Any:
        if medium.kind == "image":
            return self._images.read(medium)
        if pictures := frames(medium):
            read = [np.asarray(self._images.read(one)) for one in pictures]
            if len({one.shape for one in read}) > 1:
                raise DataError(f"{shown(medium)}: its frames are not of one size")
            return np.stack(read)
        from vllm.multimodal.media import MediaConnector

        with self._files.open(medium) as file:
            address = f"data:{medium.kind}/any;base64,{base64.b64encode(file.read()).decode()}"
        connector = MediaConnector(media_io_kwargs=self._io)
        try:
            return connector.fetch_video(address) if medium.kind == "video" else connector.fetch_audio(address)
        except Exception as cause:  # whatever a decoder raises
            raise DataError(f"{shown(medium)}: {' '.join(str(cause).split())[:200]}") from cause
