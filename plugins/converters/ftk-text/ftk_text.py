"""Plain text, one column of it, for stage pt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import ftk

if TYPE_CHECKING:
    from ftk import DatasetEntry, TextExample


def convert(row: Mapping[str, Any], entry: DatasetEntry) -> TextExample | None:
    """The text of a row; None when it is empty or null. Raises DataError for anything else than text."""
    from ftk_data.converting import text_of

    columns = entry.columns
    text = text_of(row, columns.get("text") or columns.get("prompt") or "text")
    return ftk.TextExample(text) if text and not text.isspace() else None


@ftk.hookimpl
def ftk_dataset_converters():
    yield ftk.DatasetConverter(
        "text", target="ftk_text:convert", columns=("text", "prompt"), summary="One column of plain text, for stage pt"
    )
