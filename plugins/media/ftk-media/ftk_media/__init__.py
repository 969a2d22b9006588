"""What media processors share. A library plugin: it declares options and no feature.

``ftk_media.images:Images`` opens images, and tells their sizes from their headers alone; ``ftk_media.tokens`` holds a
batch against the media that it shows. Nothing here imports Pillow or torch; the modules behind do.
"""

from __future__ import annotations

from ftk_media.options import MediaOptions

__all__ = ["MediaOptions"]
