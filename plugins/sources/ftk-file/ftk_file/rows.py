"""Opening a file, or a folder of files of one type, as rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ftk import DatasetEntry
from ftk_data.files import FileRows, open_path

if TYPE_CHECKING:
    from ftk.run import Run


def open_rows(entry: DatasetEntry, run: Run) -> FileRows:
    """The rows of the file or folder that ``file_name`` names, from the entry's folder when it is relative.

    Raises DataError when it does not exist, is of no known type, or holds several types.
    """
    return open_path(entry, Path(entry.folder) / str(entry.fields["file_name"]))
