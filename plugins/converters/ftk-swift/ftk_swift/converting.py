"""A row of ms-swift as an example."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftk import ChatExample, DataError, DatasetEntry, FeedbackExample, Message, PairExample, TextExample
from ftk_data.converting import MediaColumns, cell, optional, pairs_of, text, tools_in, truth
from ftk_data.turns import CALL, Layout, Words, holds_something, num_shared, read_turns, says_something, with_system

from ftk_swift.media import placed

LAYOUT = Layout(
    columns=("messages", "conversations", "conversation"),
    role_keys=("role", "from"),
    content_keys=("content", "value"),
    roles={
        "system": "system",
        "user": "user",
        "human": "user",
        "assistant": "assistant",
        "gpt": "assistant",
        "tool": "tool",
        "tool_response": "tool",
        "observation": "tool",
        "tool_call": CALL,
        "function_call": CALL,
    },
)
NOTHING = DatasetEntry("", {}, "", "")
WORDS = Words.of(LAYOUT, NOTHING)
Messages = tuple[Message, ...]


def convert(
    row: Mapping[str, Any], entry: DatasetEntry
) -> TextExample | ChatExample | PairExample | FeedbackExample | None:
    """The example of a row; None when it holds nothing to learn.

    An answer without anything before it is text, for stage pt. With ``rejected_response`` or ``rejected_messages`` the
    row is a pair, with ``label`` feedback, else a conversation. Raises DataError for anything that cannot be read.
    """
    if row.get("objects"):
        raise DataError("objects: boxes and references are not supported. Write them out in the text")
    media = MediaColumns(row, entry, unnamed=True)
    messages = with_system(row, entry, _messages(row, entry))
    tools = tools_in(row, entry)
    rejected = _rejected(row, entry, messages)
    if rejected is not None:
        num = num_shared(messages, rejected)
        prompt, chosen, worse = placed([messages[:num], messages[num:], rejected[num:]], media)
        if not (chosen and worse and chosen[0].role == worse[0].role == "assistant"):
            raise DataError("expected a better and a worse answer after the same prompt")
        return PairExample(prompt, chosen, worse, tools) if says_something(chosen) and says_something(worse) else None
    (messages,) = placed([messages], media)
    column, label = optional(row, entry, "label", "label")
    if label is not None:
        liked = truth(row, column)
        _check_answered(messages, column)
        return FeedbackExample(messages, liked, tools) if says_something(messages[-1:]) else None
    if not holds_something(messages):
        return None
    if len(messages) == 1 and messages[0].role == "assistant" and isinstance(messages[0].content, str):
        return TextExample(messages[0].content) if messages[0].content else None
    return ChatExample(messages, tools)


def _check_answered(messages: Messages, column: str) -> None:
    if not messages or messages[-1].role != "assistant":
        raise DataError(f"{column}: is given for a conversation that does not end with an answer")


def _messages(row: Mapping[str, Any], entry: DatasetEntry) -> Messages:
    """The turns of whichever layout the row has."""
    named = entry.columns.get("messages")
    column = named or next((one for one in LAYOUT.columns if one in row), None)
    return _read(cell(row, column), column) if column else _from_columns(row, entry)


def _from_columns(row: Mapping[str, Any], entry: DatasetEntry) -> Messages:
    """History, query and response; an empty response is not trained."""
    column, history = optional(row, entry, "history", "history")
    made: list[Message] = []
    for question, earlier in pairs_of(history, column) if history else ():
        made += (Message("user", question), Message("assistant", earlier))
    column, query = optional(row, entry, "query", "query")
    if query is not None:
        made.append(Message("user", text(query, column)))
    column = entry.columns.get("response") or "response"
    answer = text(cell(row, column), column)
    return (*made, Message("assistant", answer, trained=None if answer else False))


def _read(value: Any, column: str) -> Messages:
    """A list of turns, or of rounds such as ``{"human": ..., "assistant": ...}``; media are placed later."""
    if isinstance(value, (list, tuple)) and value and all(_is_round(one) for one in value):
        value = [
            {"role": role, "content": text(one[role], f"{column}, round {number}: {role}")}
            for number, one in enumerate(value, start=1)
            for role in sorted(one, reverse=True, key=lambda word: word != "assistant")
        ]
    return read_turns(value, column, WORDS, MediaColumns({}, NOTHING))


def _is_round(value: Any) -> bool:
    return isinstance(value, Mapping) and set(value) in ({"human", "assistant"}, {"user", "assistant"})


def _rejected(row: Mapping[str, Any], entry: DatasetEntry, messages: Messages) -> Messages | None:
    """The whole conversation with the worse answer; None when the row has none."""
    column, value = optional(row, entry, "rejected_messages", "rejected_messages")
    if value is not None:
        return with_system(row, entry, _read(value, column))
    column, value = optional(row, entry, "rejected_response", "rejected_response")
    if value is None:
        return None
    _check_answered(messages, column)
    worse = _read(value, column) if isinstance(value, (list, tuple)) else (Message("assistant", text(value, column)),)
    return (*messages[:-1], *worse)
