"""A row with a list of messages as an example."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftk import ChatExample, DatasetEntry, FeedbackExample, PairExample
from ftk_data import turns

LAYOUT = turns.Layout(
    columns=("messages", "conversations", "conversation", "prompt"),
    role_keys=("role",),
    content_keys=("content",),
    roles={
        "system": "system",
        "developer": "system",
        "user": "user",
        "assistant": "assistant",
        "tool": "tool",
        "function": "tool",
    },
)


def convert(row: Mapping[str, Any], entry: DatasetEntry) -> ChatExample | PairExample | FeedbackExample | None:
    """The example of a row; None when it holds nothing to learn. See :func:`ftk_data.turns.convert`."""
    if row.get("functions") and not row.get("tools") and "tools" not in entry.columns:
        row = {**row, "tools": row["functions"]}  # what the API had before tools
    return turns.convert(row, entry, LAYOUT)
