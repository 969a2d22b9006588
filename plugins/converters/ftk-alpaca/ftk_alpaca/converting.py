"""A row of columns as an example."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftk import ChatExample, DatasetEntry, FeedbackExample, Message, PairExample, TextExample
from ftk_data.converting import MediaColumns, optional, pairs_of, text, text_of, tools_in, truth


def convert(
    row: Mapping[str, Any], entry: DatasetEntry
) -> TextExample | ChatExample | PairExample | FeedbackExample | None:
    """The example of a row; None when its answer is empty.

    With a prompt column alone it is text, with ``ranking`` a pair, with ``kto_tag`` feedback, else a conversation; one
    without an answer when the entry says that there is no column for it. Raises DataError for a missing column or a
    value of the wrong type.
    """
    columns = entry.columns
    if len(columns) == 1 and columns.get("prompt") and not entry.fields.get("ranking"):
        said = text_of(row, columns["prompt"])
        return TextExample(said) if said else None
    media = MediaColumns(row, entry)
    messages = _prompt(row, entry, columns, media)
    tools = tools_in(row, entry)
    if entry.fields.get("ranking"):
        chosen = _answer(row, columns.get("chosen") or "chosen", media)
        rejected = _answer(row, columns.get("rejected") or "rejected", media)
        media.check_used()
        return PairExample(messages, (chosen,), (rejected,), tools) if chosen.content and rejected.content else None
    column = columns.get("response", "output")
    if column is None:
        media.check_used()
        return ChatExample(messages, tools)
    answer = _answer(row, column, media)
    media.check_used()
    if not answer.content:
        return None
    if columns.get("kto_tag"):
        return FeedbackExample((*messages, answer), truth(row, columns["kto_tag"]), tools)
    return ChatExample((*messages, answer), tools)


def _prompt(
    row: Mapping[str, Any], entry: DatasetEntry, columns: Mapping[str, str], media: MediaColumns
) -> tuple[Message, ...]:
    """System, earlier turns, and the question, which is the prompt and the query with a newline in between."""
    messages = []
    column, system = optional(row, entry, "system", "system")
    if system:
        messages.append(Message("system", text(system, column)))
    column, history = optional(row, entry, "history", "history")
    for question, answer in pairs_of(history, column) if history else ():
        messages += (Message("user", media.content(question)), Message("assistant", media.content(answer)))
    messages.append(Message("user", media.content(_question(row, entry, columns))))
    return tuple(messages)


def _question(row: Mapping[str, Any], entry: DatasetEntry, columns: Mapping[str, str]) -> str:
    prompt = columns.get("prompt", "instruction")
    # `input` belongs to `instruction`; beside a prompt of another name it may be anything
    column, query = optional(row, entry, "query", "input" if prompt == "instruction" else None)
    asked = text(query, column)
    if prompt is None or ("prompt" not in columns and columns.get("query") and prompt not in row):
        return asked
    said = text_of(row, prompt)
    return f"{said}\n{asked}" if said and asked else said or asked


def _answer(row: Mapping[str, Any], column: str, media: MediaColumns) -> Message:
    return Message("assistant", media.content(text_of(row, column)))
