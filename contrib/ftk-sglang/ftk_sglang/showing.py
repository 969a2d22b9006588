"""Media in the body of a request: ``image_data``, ``video_data`` and ``audio_data``, as data URIs."""

from __future__ import annotations

import base64
import mimetypes
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ftk import DataError, Media
from ftk_media.files import Files, shown

if TYPE_CHECKING:
    from ftk.run import Run

FIELDS = {"image": "image_data", "video": "video_data", "audio": "audio_data"}
USUAL = {"image": "image/png", "video": "video/mp4", "audio": "audio/wav"}


class Showing:
    """Reads the media of one run; the server decodes them."""

    def __init__(self, run: Run) -> None:
        self._files = Files.of(run)

    def data(self, media: Sequence[Media]) -> dict[str, list[str]]:
        """Field of the request → its media in order. Raises DataError for what cannot be opened."""
        made: dict[str, list[str]] = {}
        for one in media:
            if isinstance(one.source, tuple):
                raise DataError(f"{shown(one)}: sglang takes the file of a {one.kind}, not its frames")
            made.setdefault(FIELDS[one.kind], []).append(self._uri(one))
        return made

    def _uri(self, medium: Media) -> str:
        if isinstance(medium.source, str) and medium.source.startswith("data:"):
            return medium.source
        named = mimetypes.guess_type(medium.source)[0] if isinstance(medium.source, str) else None
        kind = named if named and named.startswith(medium.kind) else USUAL[medium.kind]
        with self._files.open(medium) as file:
            return f"data:{kind};base64,{base64.b64encode(file.read()).decode()}"
