"""Images: their size from the header, and their pixels when a batch needs them.

Both go through the same steps (upright, within the pixel limits), so that what is counted while rows are made is what
the model's processor gets later.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ftk import DataError, Media
from PIL import ExifTags, Image, UnidentifiedImageError

from ftk_media.files import Files, shown
from ftk_media.options import MediaOptions

if TYPE_CHECKING:
    from ftk.run import Run

Size = tuple[int, int]
"""Width and height, as Pillow has them."""

TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
"""EXIF orientation → what turns the image upright (Exif 2.32, table 4.6.4)."""

PROGRAMS = ("EPS", "WMF")
"""Formats that Pillow draws with other programs, which run what the file says."""

BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, struct.error, zlib.error, OverflowError)
"""What Pillow raises for files that are not what they seem."""


def blank_image(width: int = 32, height: int = 32) -> Media:
    """A black image, for batches that show nothing while other processes' do."""
    content = io.BytesIO()
    Image.new("RGB", (width, height)).save(content, "PNG")
    return Media("image", content.getvalue())


class Images:
    """The images of a run, within ``least`` and ``most`` pixels."""

    def __init__(self, files: Files, least: int, most: int) -> None:
        self.files, self.least, self.most = files, least, most

    @classmethod
    def of(cls, run: Run) -> Images:
        options = run.options(MediaOptions)
        return cls(Files.of(run), options.image_min_pixels, options.image_max_pixels)

    def fingerprint(self) -> list[object]:
        """What sizes depend on beside the image itself, and where it is looked for."""
        return [self.least, self.most, str(self.files.media_dir)]

    def size(self, medium: Media) -> Size:
        """The size of the image that :meth:`read` gives, from the file's header alone.

        Raises DataError for a file that is missing or no image.
        """
        with self._opened(medium) as image:
            width, height = image.size
            if _orientation(image) >= 5:
                width, height = height, width
            return fitted((width, height), self.least, self.most)

    def read(self, medium: Media) -> Image.Image:
        """The image in RGB, upright, within the pixel limits. Raises DataError when it is broken."""
        with self._opened(medium) as image:
            orientation = _orientation(image)
            image.load()
            made = _in_rgb(image)
            if orientation in TURNED:
                made = made.transpose(TURNED[orientation])
            size = fitted(made.size, self.least, self.most)
            return made if size == made.size else made.resize(size, Image.Resampling.BICUBIC)

    @contextmanager
    def _opened(self, medium: Media) -> Iterator[Image.Image]:
        name = shown(medium)
        with self.files.open(medium) as file:
            try:
                with Image.open(file) as image:
                    if image.format in PROGRAMS:
                        raise DataError(f"{name}: {image.format} is a program, which is not run. Convert it to PNG")
                    if not all(image.size):
                        raise DataError(f"{name}: the image has no pixels")
                    yield image
            except UnidentifiedImageError as cause:
                raise DataError(f"{name}: is no image that Pillow can read. Convert it to PNG or JPEG") from cause
            except Image.DecompressionBombError as cause:
                most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
                raise DataError(
                    f"{name}: the image has more than {most:,} pixels, which fills the memory. Make it smaller"
                ) from cause
            except BROKEN as cause:
                raise DataError(f"{name}: the image is damaged: {' '.join(str(cause).split())}") from cause


def fitted(size: Size, least: int, most: int) -> Size:
    """The size in proportion, of at most ``most`` pixels and, as far as whole pixels allow, at least ``least``."""
    width, height = size
    pixels = width * height
    if least <= pixels <= most:
        return size
    scale = math.sqrt((most if pixels > most else least) / pixels)
    return max(1, int(width * scale)), max(1, int(height * scale))


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 when there is none; asked before the pixels are loaded.

    Of PNG files Pillow's own ``getexif`` loads the pixels, in case the tag stands behind them; here such a tag is not
    seen. TIFF files Pillow turns itself.
    """
    if image.format == "TIFF":
        return 1
    found = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    return found if isinstance(found, int) else 1


def _in_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):  # which Pillow would cut off at 255 instead of scaling it
        image = image.point(lambda value: value * (1 / 256)).convert("L")
    return image.convert("RGB")
