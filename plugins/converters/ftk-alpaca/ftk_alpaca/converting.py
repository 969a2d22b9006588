"""A row of columns as an example."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftk import (
    ChatExample,
    DataError,
    DatasetEntry,
    FeedbackExample,
    Message,
    PairExample,
    TextExample,
)
from ftk_data.converting import MediaColumns, cell, short, text_of, tools_of

DEFAULTS = {"prompt": "instruction", "query": "input", "response": "output"}


def convert(
    row: Mapping[str, Any], entry: DatasetEntry
) -> TextExample | ChatExample | PairExample | FeedbackExample | None:
    """The example of a row; None when its answer is empty.

    An entry with ``columns`` has exactly those; one without has instruction, input and output, of which the input may
    be missing. With a prompt alone it is text, with ``ranking`` a pair, with ``kto_tag`` feedback, else a conversation.
    Raises DataError for a missing column or a value of the wrong type.
    """
    columns = entry.columns or DEFAULTS
    if set(columns) == {"prompt"}:
        text = text_of(row, columns["prompt"])
        return TextExample(text) if text else None
    media = MediaColumns(row, entry)
    messages = _prompt(row, entry, columns, media)
    tools = tools_of(cell(row, columns["tools"]), columns["tools"]) if "tools" in columns else ()
    if entry.fields.get("ranking"):
        chosen = text_of(row, columns.get("chosen", "chosen"))
        rejected = text_of(row, columns.get("rejected", "rejected"))
        media.check_used()
        if not chosen or not rejected:
            return None
        return PairExample(messages, (Message("assistant", chosen),), (Message("assistant", rejected),), tools)
    answer = text_of(row, columns.get("response", "output"))
    media.check_used()
    if not answer:
        return None
    messages += (Message("assistant", answer),)
    if "kto_tag" in columns:
        return FeedbackExample(messages, _liked(row, columns["kto_tag"]), tools)
    return ChatExample(messages, tools)


def _prompt(
    row: Mapping[str, Any], entry: DatasetEntry, columns: Mapping[str, str], media: MediaColumns
) -> tuple[Message, ...]:
    """System, earlier turns, and the question, which is the prompt and the query with a newline in between."""
    messages = []
    if "system" in columns and (system := text_of(row, columns["system"])):
        messages.append(Message("system", system))
    for question, answer in _history(row, columns.get("history")):
        messages += (Message("user", media.content(question)), Message("assistant", answer))
    parts = [text_of(row, columns["prompt"])] if "prompt" in columns else []
    if "query" in columns and (entry.columns or columns["query"] in row):
        parts.append(text_of(row, columns["query"]))
    messages.append(Message("user", media.content("\n".join(part for part in parts if part))))
    return tuple(messages)


def _history(row: Mapping[str, Any], column: str | None) -> list[tuple[str, str]]:
    pairs = cell(row, column) if column else None
    if pairs is None:
        return []
    well_formed = isinstance(pairs, (list, tuple)) and all(
        isinstance(pair, (list, tuple)) and len(pair) == 2 and all(isinstance(text, str) for text in pair)
        for pair in pairs
    )
    if not well_formed:
        raise DataError(f"{column}: expected pairs of a question and an answer, found {short(pairs)}")
    return [(question, answer) for question, answer in pairs]


def _liked(row: Mapping[str, Any], column: str) -> bool:
    value = cell(row, column)
    if not isinstance(value, bool):
        raise DataError(f"{column}: expected true or false, found {short(value)}")
    return value
