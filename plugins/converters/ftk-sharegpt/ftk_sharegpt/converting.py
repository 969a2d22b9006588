"""A row with a list of turns as an example."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftk import ChatExample, DatasetEntry, FeedbackExample, PairExample
from ftk_data import turns

LAYOUT = turns.Layout(
    columns=("conversations", "conversation", "messages"),
    role_keys=("from", "role"),
    content_keys=("value", "content"),
    roles={
        "human": "user",
        "gpt": "assistant",
        "function_call": turns.CALL,
        "observation": "tool",
        "system": "system",
        "user": "user",
        "assistant": "assistant",
        "tool": "tool",
    },
)


def convert(row: Mapping[str, Any], entry: DatasetEntry) -> ChatExample | PairExample | FeedbackExample | None:
    """The example of a row; None when it holds nothing to learn. See :func:`ftk_data.turns.convert`."""
    return turns.convert(row, entry, LAYOUT)
