"""Opening files through fsspec. Rows are read as they come; no file is fetched as a whole before."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from io import BufferedReader
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from ftk import DataError, DatasetEntry, PluginError
from ftk_data.files import FileRows, holds_rows, open_places
from ftk_data.slices import SlicedRows, of_file

if TYPE_CHECKING:
    from ftk.run import Run

ANONYMOUS: Mapping[str, Mapping[str, Any]] = {
    "s3": {"anon": True},
    "gs": {"token": "anon"},
    "gcs": {"token": "anon"},
    "az": {"anon": True},
    "abfs": {"anon": True},
}
"""What makes a file system ask without credentials, by protocol; the others have one way only."""
IDENTITY = frozenset(
    {"size", "ETag", "etag", "md5Hash", "Content-MD5", "Digest", "generation", "mtime", "created", "updated"}
    | {"LastModified", "last_modified", "Last-Modified"}
)
"""What file systems tell of a file that changes when it is written anew. ``ukey`` is a constant for https."""
BUFFER = 1 << 20


@dataclass(frozen=True)
class CloudFile:
    """A file of an fsspec file system."""

    system: Any
    inside: str
    address: str

    def __str__(self) -> str:
        return self.address

    @property
    def name(self) -> str:
        return self.inside.rsplit("/", 1)[-1]

    def open(self) -> BinaryIO:
        return cast("BinaryIO", BufferedReader(self.system.open(self.inside, "rb"), BUFFER))

    def stamp(self) -> str:
        facts = self.system.info(self.inside)
        return json.dumps({key: facts[key] for key in sorted(IDENTITY & facts.keys())}, default=str)

    def digest(self) -> str:
        """Stores know a digest or the time of every file, so it need not be fetched for this."""
        return self.stamp()


def open_rows(entry: DatasetEntry, run: Run) -> FileRows | SlicedRows:
    """The rows of the file, or of the files beneath the folder, that ``cloud_file_name`` names.

    Raises DataError when it is not there or may not be read, PluginError when no package opens its protocol.
    """
    address = str(entry.fields["cloud_file_name"])
    if "://" not in address:
        raise DataError(f"{entry.name} ({entry.origin}): {address}: expected an address such as s3://bucket/rows.jsonl")
    scheme = address.partition("://")[0]
    refused: Exception | None = None
    for options in [ANONYMOUS[scheme], {}] if scheme in ANONYMOUS else [{}]:
        try:
            places = files_at(address, options)
        except ImportError as cause:
            said = str(cause).splitlines()[0]
            hint = 'pip install "ftk-cloud[backend]"'
            raise PluginError(f"{entry.name}: {address}: {scheme}:// is not installed: {said}. {hint}") from cause
        except Exception as cause:  # each store raises errors of its own, for instance for a missing permission
            refused = cause
            continue
        if places:
            return of_file(entry, open_places(entry.name, places, address))
    said = (str(refused).strip().splitlines() or [type(refused).__name__])[0] if refused else "there is nothing"
    hint = "Mind the spelling; what is not public needs the credentials of your store in the environment"
    raise DataError(f"{entry.name} ({entry.origin}): {address}: cannot be read: {said}. {hint}") from refused


def files_at(address: str, options: Mapping[str, Any]) -> list[CloudFile]:
    """The file of an address, or the files of rows beneath it; empty when there is nothing."""
    import fsspec

    system, path = fsspec.core.url_to_fs(address, **options)
    if system.isfile(path):
        return [CloudFile(system, path, address)]
    found = sorted(one for one in system.find(path) if holds_rows(one.removeprefix(path).lstrip("/")))
    return [CloudFile(system, one, system.unstrip_protocol(one)) for one in found]
