"""Files of rows: where they lie, which of a folder are meant, and several of them read one after the other.

For sources: ``open_path`` for what a user has on disk, ``open_places`` for files anywhere else;
:mod:`ftk_data.snapshots` for what a hub has been downloaded to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Protocol

from ftk import DataError, DatasetEntry

from ftk_data.columnar import Arrow, Parquet
from ftk_data.csv_files import Csv
from ftk_data.file_formats import Json, Lines, Lost, Reader, Text

FORMATS: Mapping[str, type[Reader]] = {
    ".arrow": Arrow,
    ".csv": Csv,
    ".json": Json,
    ".jsonl": Lines,
    ".parquet": Parquet,
    ".txt": Text,
}
"""The reader of each file type, by the end of the file's name."""
PACKED = frozenset({".gz", ".zst", ".bz2", ".xz", ".zip"})
HIDDEN = (".", "_")
ABOUT = frozenset({"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "configuration.json"})
"""Files that say something about the rows of a folder and hold none."""


class Place(Protocol):
    """A file somewhere. ``str(place)`` is its whole address; one with a ``path`` is a file of this machine's."""

    @property
    def name(self) -> str:
        """The last part of the address."""

    def open(self) -> BinaryIO:
        """The file for reading, with a position of its own. Raises OSError."""

    def stamp(self) -> str:
        """What changes when the file is written anew; quick. Raises OSError."""

    def digest(self) -> str:
        """What changes with what the file holds. Raises OSError."""


@dataclass(frozen=True)
class LocalFile:
    """A file of this machine's."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        return self.path.name

    def open(self) -> BinaryIO:
        return self.path.open("rb")

    def stamp(self) -> str:
        facts = self.path.stat()
        return f"{facts.st_size}:{facts.st_mtime_ns}"

    def digest(self) -> str:
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def open_path(entry: DatasetEntry, path: Path) -> FileRows:
    """The rows of a local file, or of a folder of files of one type.

    Raises DataError when it does not exist, is of no known type, or holds several types.
    """
    if path.is_dir():
        return open_places(entry.name, [LocalFile(file) for file in files_in(path)], str(path))
    if not path.exists():
        raise DataError(f"{entry.name}: {path}: does not exist{_beside(path)}. It is named in {entry.origin}")
    return open_places(entry.name, [LocalFile(path)], str(path))


def open_places(name: str, places: Sequence[Place], where: str) -> FileRows:
    """The rows of some files of one type, in the order given. ``where`` is what the user calls them.

    Raises DataError when there is none, or they are of several types or of one that is not known.
    """
    for place in places:
        if suffix_of(place.name) in PACKED:
            raise DataError(f"{name}: {place}: is packed, and rows are read from plain files only. Unpack it")
        if suffix_of(place.name) not in FORMATS:
            raise DataError(f"{name}: {place}: is of no known type. Known: {', '.join(sorted(FORMATS))}")
    types = sorted({suffix_of(place.name) for place in places})
    if len(types) != 1:
        what = f"files of {len(types)} types ({', '.join(types)})" if types else "no files of rows"
        raise DataError(f"{name}: {where}: holds {what}. A folder must hold files of one type, such as .jsonl")
    readers = [FORMATS[types[0]](place) for place in places]
    return CountedRows(name, readers) if all(reader.counted for reader in readers) else FileRows(name, readers)


def suffix_of(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def files_in(folder: Path) -> list[Path]:
    """The files of a folder and those beneath it that hold rows, in the order of their names."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return [path for path in found if holds_rows(path.relative_to(folder).as_posix())]


def holds_rows(path: str) -> bool:
    """Whether a file of a folder is one of rows, by its path within the folder; packed ones are, to be refused."""
    *folders, name = PurePosixPath(path).parts
    if name in ABOUT or any(part.startswith(HIDDEN) for part in (*folders, name)):
        return False
    packed = suffix_of(name) in PACKED and suffix_of(PurePosixPath(name).stem) in FORMATS
    return packed or suffix_of(name) in FORMATS


def _beside(path: Path) -> str:
    """``" (data/ has alpaca.json, ...)"``, for a name that was misspelt."""
    if not path.parent.is_dir():
        return f" (neither does {path.parent})"
    there = (one.name for one in path.parent.iterdir() if suffix_of(one.name) in FORMATS and one.name not in ABOUT)
    names = sorted(there)[:8]
    return f" ({path.parent} has {', '.join(names)})" if names else ""


class FileRows:
    """The rows of some files, one after the other. A row that does not parse raises DataError; reading can go on."""

    def __init__(self, name: str, readers: Sequence[Reader]) -> None:
        self.name = name
        self._readers = readers
        self._counts: dict[int, int] = {}

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return self.at(0)

    def at(self, index: int) -> Iterator[Mapping[str, Any]]:
        return _Rows(self, index)

    def where(self, index: int) -> str:
        """``chat.jsonl:17``."""
        try:
            number, index = self.find(index)
            return self._readers[number].where(index)
        except (DataError, OSError):  # the file has gone or broken since
            return f"row {index + 1}"

    def fingerprint(self) -> str:
        """A digest of what the files hold. Raises DataError when one cannot be read."""
        digest = hashlib.sha256()
        for reader in self._readers:
            try:
                digest.update(reader.place.digest().encode())
            except OSError as cause:
                raise DataError(f"{self.name}: {reader.unreadable(cause)}") from cause
        return digest.hexdigest()[:32]

    def find(self, index: int) -> tuple[int, int]:
        """The file that row ``index`` is in, and its number there; the last file when there are not that many rows."""
        for number in range(len(self._readers) - 1):
            count = self.count(number)
            if index < count:
                return number, index
            index -= count
        return len(self._readers) - 1, index

    def count(self, number: int) -> int:
        """The number of rows of a file; for some types that means reading it. Raises DataError when it cannot be."""
        if number not in self._counts:
            self._counts[number] = self._readers[number].count()
        return self._counts[number]

    def num_rows(self) -> int:
        """The number of all rows; for some types that means reading them. Raises DataError when that cannot be."""
        try:
            return sum(self.count(number) for number in range(len(self._readers)))
        except DataError as error:
            raise DataError(f"{self.name}: {error}") from error.__cause__

    def reader(self, number: int) -> Reader | None:
        return self._readers[number] if number < len(self._readers) else None


class CountedRows(FileRows):
    """Rows of files whose number is found without parsing them."""

    def __len__(self) -> int:
        return self.num_rows()


class _Rows(Iterator[Mapping[str, Any]]):
    """No generator, because that would be at its end after the first row that does not parse."""

    def __init__(self, owner: FileRows, index: int) -> None:
        self.owner, self.index = owner, index
        self.number = -1
        self.rows: Iterator[Mapping[str, Any]] = iter(())
        self.lost: DataError | None = None

    def __next__(self) -> Mapping[str, Any]:
        while True:
            try:
                return next(self.rows)
            except StopIteration:
                if self.lost:
                    raise self.lost from self.lost.__cause__
                self._open_next()
            except Lost as error:
                self._lose(error)
            except DataError as error:
                raise DataError(f"{self.owner.name}: {error}") from error.__cause__

    def _open_next(self) -> None:
        """Open the next file, at first the one that holds the row to begin with; StopIteration after the last."""
        try:
            first = 0
            if self.number < 0:
                self.number, first = self.owner.find(self.index)
            else:
                self.number += 1
            reader = self.owner.reader(self.number)
            if reader is None:
                raise StopIteration
            self.rows = reader.rows_from(first)
        except DataError as error:
            self._lose(error)

    def _lose(self, error: DataError) -> None:
        """The rest of the file cannot be read, so there is no going on: the same error, again and again."""
        self.rows = iter(())
        self.lost = Lost(f"{self.owner.name}: {error}")
        self.lost.__cause__ = error.__cause__
