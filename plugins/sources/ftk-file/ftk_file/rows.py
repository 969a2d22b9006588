"""Opening a file, or a folder of files of one type, as rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ftk import DatasetEntry
from ftk_data.files import FileRows, open_path
from ftk_data.slices import SlicedRows, of_file

if TYPE_CHECKING:
    from ftk.run import Run


def open_rows(entry: DatasetEntry, run: Run) -> FileRows | SlicedRows:
    """The rows of the file or folder that ``file_name`` names, from the entry's folder when it is relative.

    Raises DataError when it does not exist, is of no known type, holds several types, or has no such ``split``.
    """
    return of_file(entry, open_path(entry, Path(entry.folder) / str(entry.fields["file_name"])))
