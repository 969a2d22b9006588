"""From the source of a medium to its bytes."""

from __future__ import annotations

import base64
import binascii
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import unquote_to_bytes

from ftk import DataError, Media

from ftk_media.options import MediaOptions

if TYPE_CHECKING:
    from ftk.run import Run

LONGEST_PATH = 1024


class Files:
    """Opens the media of a run: paths, data URIs and bytes.

    media_dir: where relative paths start, whatever folder their data set has; unset is as they stand.
    folders: those of the data sets. beside: the folders of data files, where a path is looked for as well.
    """

    def __init__(self, media_dir: str | None, folders: Sequence[Path] = (), beside: Sequence[Path] = ()) -> None:
        self.media_dir = Path(media_dir).expanduser() if media_dir else None
        self.folders, self.beside = folders, beside

    @classmethod
    def of(cls, run: Run) -> Files:
        entries = [(one.entry, one.source) for split in run.plan.datasets.values() for one in split]
        files = [(entry.folder, entry.fields.get(source.field)) for entry, source in entries]
        return cls(
            _from_config(run.options(MediaOptions).media_dir, run),
            sorted({Path(entry.folder) for entry, _ in entries if entry.folder}),
            sorted({(folder / Path(file).expanduser()).parent for folder, file in files if isinstance(file, str)}),
        )

    def open(self, medium: Media) -> BinaryIO:
        """The medium's bytes, to be closed by the caller. Raises DataError when there are none."""
        source, name = medium.source, shown(medium)
        if isinstance(source, tuple):
            raise DataError(f"{name}: is a list of frames, and this model takes the file of a {medium.kind}")
        if isinstance(source, bytes):
            return io.BytesIO(_not_empty(source, name))
        if source.startswith("data:"):
            return io.BytesIO(_not_empty(_of_data_uri(source, name), name))
        path = self.path(medium)
        try:
            file = path.open("rb")
        except OSError as cause:
            raise DataError(f"{name}: cannot be opened: {cause.strerror or cause}") from cause
        if os.fstat(file.fileno()).st_size == 0:
            file.close()
            raise DataError(f"{name}: the file is empty")
        return file

    def path(self, medium: Media) -> Path:
        """The file of a medium that is a path.

        Raises DataError for an address, for a path that leads nowhere, and for one that leads to several files.
        """
        source = str(medium.source)
        if "://" in source:
            raise DataError(f"{shown(medium)}: is an address. Download the {medium.kind} and give its path")
        if not source.strip():
            raise DataError(f"{medium.kind}: its path is empty")
        if len(source) > LONGEST_PATH:
            raise DataError(f"{shown(medium)}: is no path. In front of base64 write data:{medium.kind}/FORMAT;base64,")
        tried = self._places(Path(source).expanduser())
        found = [path for path in tried if path.is_file()]
        if len(found) > 1 and len(places := {str(path.resolve().parent) for path in found}) > 1:
            raise DataError(f"{source}: is in several folders: {', '.join(sorted(places))}. Set media_dir")
        if found:
            return found[0]
        if any(path.is_dir() for path in tried):
            raise DataError(f"{source}: is a folder. Give the file of the {medium.kind}")
        where = f" (looked for {', '.join(map(str, tried))})" if [str(path) for path in tried] != [source] else ""
        raise DataError(f"{source}: there is no such file{where}. Set media_dir to the folder of the {medium.kind}s")

    def _places(self, path: Path) -> list[Path]:
        """The files that a path may mean; the first one that is there decides when media_dir says where."""
        within = self._within(path)
        if self.media_dir and (within or not path.is_absolute()):
            wanted = [self.media_dir / (within or path), path]
            return next(([one] for one in wanted if one.is_file()), wanted)
        if path.is_absolute() and within is None:
            return [path]
        return [path, *(folder / (within or path) for folder in self.beside if folder != Path())]

    def _within(self, path: Path) -> Path | None:
        """The path without the folder of its data set, which converters put in front; None when it has none."""
        inside = [folder for folder in self.folders if path.is_relative_to(folder)]
        return path.relative_to(max(inside, key=lambda folder: len(folder.parts))) if inside else None


def _from_config(media_dir: str | None, run: Run) -> str | None:
    """A relative folder starts at the working directory or, when it is not there, beside the YAML, like dataset_dir."""
    beside = Path(run.plan.config).parent / Path(media_dir or "").expanduser()
    return str(beside) if media_dir and not Path(media_dir).expanduser().is_dir() and beside.is_dir() else media_dir


def frames(medium: Media) -> tuple[Media, ...]:
    """The images of a video that is given as its frames; nothing for a file."""
    return tuple(Media("image", one) for one in medium.source) if isinstance(medium.source, tuple) else ()


def shown(medium: Media) -> str:
    """What errors call a medium: its path, or the start of what it holds."""
    if isinstance(medium.source, tuple):
        return f"{medium.kind} of {len(medium.source)} frames, {shown(frames(medium)[0])} the first"
    if isinstance(medium.source, bytes):
        return f"{medium.kind} of {len(medium.source)} bytes"
    if medium.source.startswith("data:") or len(medium.source) > LONGEST_PATH:
        return f"{medium.kind} {medium.source[:30]}..."
    return medium.source


def _of_data_uri(source: str, name: str) -> bytes:
    head, comma, body = source.partition(",")
    if not comma:
        raise DataError(f"{name}: is no data URI: the comma before the data is missing")
    if not head.endswith(";base64"):
        return unquote_to_bytes(body)
    try:
        return base64.b64decode("".join(body.split()), validate=True)
    except (binascii.Error, ValueError) as cause:
        raise DataError(f"{name}: its base64 is damaged: {cause}") from cause


def _not_empty(content: bytes, name: str) -> bytes:
    if not content:
        raise DataError(f"{name}: holds nothing")
    return content
