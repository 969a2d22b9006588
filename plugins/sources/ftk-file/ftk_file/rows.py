"""Opening a file, or a folder of files of one type, as rows."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftk import DataError, DatasetEntry

from ftk_file.formats import FORMATS, Reader

if TYPE_CHECKING:
    from ftk.run import Run

HIDDEN = (".", "_")
INFO = "dataset_info.json"


def open_rows(entry: DatasetEntry, run: Run) -> FileRows:
    """The rows of the file or folder that ``file_name`` names, from the entry's folder when it is relative.

    Raises DataError when it does not exist, is of no known type, or holds several types.
    """
    path = Path(entry.folder) / str(entry.fields["file_name"])
    if path.is_dir():
        files = sorted(one for one in path.rglob("*") if one.is_file() and not one.name.startswith(HIDDEN))
        types = sorted({one.suffix for one in files})
        if len(types) != 1:
            what = f"files of {len(types)} types ({', '.join(types)})" if types else "no files"
            raise DataError(f"{entry.name}: {path}: holds {what}. A folder must hold files of one type")
    elif path.exists():
        files = [path]
    else:
        raise DataError(f"{entry.name}: {path}: does not exist{_beside(path)}. It is named in {entry.origin}")
    make = FORMATS.get(files[0].suffix.lower())
    if make is None:
        raise DataError(f"{entry.name}: {files[0]}: is of no known type. Known: {', '.join(sorted(FORMATS))}")
    return FileRows(entry.name, [make(file) for file in files])


def _beside(path: Path) -> str:
    """``" (data/ has alpaca.json, ...)"``, for a name that was misspelt."""
    if not path.parent.is_dir():
        return f" (neither does {path.parent})"
    names = sorted(one.name for one in path.parent.iterdir() if one.suffix.lower() in FORMATS and one.name != INFO)[:8]
    return f" ({path.parent} has {', '.join(names)})" if names else ""


class FileRows:
    """The rows of some files, one after the other. A row that does not parse raises DataError; reading can go on."""

    def __init__(self, name: str, readers: list[Reader]) -> None:
        self.name = name
        self._readers = readers
        self._starts: list[int] = []

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        self._starts = []
        return _Rows(self)

    def where(self, index: int) -> str:
        """``chat.jsonl:17``; rows that have not been read yet have no place."""
        number = max(bisect_right(self._starts, index) - 1, 0)
        start = self._starts[number] if self._starts else 0
        return self._readers[number].where(index - start)

    def fingerprint(self) -> str:
        """The SHA-256 of what the files hold."""
        digest = hashlib.sha256()
        for reader in self._readers:
            with reader.path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()[:32]


class _Rows(Iterator[Mapping[str, Any]]):
    """No generator, because that would be at its end after the first row that does not parse."""

    def __init__(self, owner: FileRows) -> None:
        self.owner = owner
        self.index = 0
        self.waiting = iter(owner._readers)
        self.reader: Reader | None = None
        self.rows: Iterator[Mapping[str, Any]] = iter(())
        self.broken: DataError | None = None

    def __next__(self) -> Mapping[str, Any]:
        while True:
            if self.broken:
                raise self.broken
            try:
                row = next(self.rows)
            except StopIteration:
                self.reader = next(self.waiting)
                self.owner._starts.append(self.index)
                self.rows = self._opened(self.reader)
                continue
            except DataError as error:
                self.index += 1
                raise DataError(f"{self.owner.name}: {error}") from error.__cause__
            self.index += 1
            return row

    def _opened(self, reader: Reader) -> Iterator[Mapping[str, Any]]:
        try:
            return iter(reader)
        except DataError as error:  # the whole file is lost, so there is no going on
            self.broken = DataError(f"{self.owner.name}: {error}")
            raise self.broken from error.__cause__
