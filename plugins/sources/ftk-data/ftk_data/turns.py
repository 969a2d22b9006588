"""Conversations that are written as a list of turns. The layouts differ in names, which :class:`Layout` holds.

What a template may be able to write is kept as it is: several turns of one role in a row, a question without an answer
at the end, an answer at the start. Refused is what nothing can be made of: an unknown role, a tool's result before
anything was said, content of no known form.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, cast

from ftk import ChatExample, DataError, DatasetEntry, FeedbackExample, Message, PairExample, ToolCall
from ftk.types import Role

from ftk_data.contents import Content, content_of
from ftk_data.converting import (
    MediaColumns,
    calls_of,
    cell,
    optional,
    short,
    spelt_out,
    text,
    tools_in,
    truth,
    weight_of,
)

CALL = "call"
"""The role of a turn whose text is the JSON of calls."""
REASONING = ("reasoning_content", "reasoning", "thinking")


@dataclass(frozen=True, eq=False)
class Layout:
    """The names of one way to write conversations.

    columns: where the turns may stand, the first that a row has. role_keys, content_keys: what a turn calls these.
    roles: what the turns call a role → ``system``, ``user``, ``assistant``, ``tool``, or CALL.
    """

    columns: tuple[str, ...]
    role_keys: tuple[str, ...]
    content_keys: tuple[str, ...]
    roles: Mapping[str, str]


TAGS: Mapping[str, str] = {
    "user_tag": "user",
    "assistant_tag": "assistant",
    "observation_tag": "tool",
    "function_tag": CALL,
    "system_tag": "system",
}
TAG_NAMES = ("role_tag", "content_tag", *TAGS)
COLUMN_NAMES = ("messages", "system", "tools", "images", "videos", "audios", "chosen", "rejected", "kto_tag")


class Words(NamedTuple):
    """A layout with what an entry says otherwise."""

    columns: tuple[str, ...]
    role_keys: tuple[str, ...]
    content_keys: tuple[str, ...]
    roles: Mapping[str, str]

    @classmethod
    def of(cls, layout: Layout, entry: DatasetEntry) -> Words:
        """Tags that an entry does not give keep their defaults. Raises DataError for a tag that is no text."""
        try:
            return _words(layout, tuple(entry.tags.items()))
        except TypeError:  # a list or a mapping
            raise DataError(f"tags: expected a text each, found {short(dict(entry.tags))}") from None


@lru_cache(maxsize=64)
def _words(layout: Layout, tags: tuple[tuple[str, Any], ...]) -> Words:
    for name, word in tags:
        if word is not None and not isinstance(word, str):
            raise DataError(f"tags.{name}: expected text, found {short(word)}")
    given = {name: word for name, word in tags if word}
    roles = {**layout.roles, **{word: TAGS[name] for name, word in given.items() if name in TAGS}}
    role, content = given.get("role_tag"), given.get("content_tag")
    return Words(
        layout.columns, (role,) if role else layout.role_keys, (content,) if content else layout.content_keys, roles
    )


def convert(
    row: Mapping[str, Any], entry: DatasetEntry, layout: Layout
) -> ChatExample | PairExample | FeedbackExample | None:
    """The example of a row in a layout; None when it holds nothing to learn.

    With ``ranking`` a pair, with ``kto_tag`` feedback, else a conversation. Raises DataError for anything that cannot
    be read.
    """
    words, media = Words.of(layout, entry), MediaColumns(row, entry)
    if entry.fields.get("ranking"):
        return _pair(row, entry, words, media)
    column = _column(row, entry, words)
    messages = with_system(row, entry, read_turns(cell(row, column), column, words, media))
    media.check_used()
    tools = tools_in(row, entry)
    if "kto_tag" in entry.columns:
        liked = truth(row, entry.columns["kto_tag"])
        if messages and messages[-1].role != "assistant":
            raise DataError(
                f"{column}: ends with a turn of {messages[-1].role}, so there is no answer to like or dislike"
            )
        return FeedbackExample(messages, liked, tools) if says_something(messages[-1:]) else None
    return ChatExample(messages, tools) if holds_something(messages) else None


def _column(row: Mapping[str, Any], entry: DatasetEntry, words: Words) -> str:
    """The column of the turns: the one that the entry names, else the first of the layout's that the row has."""
    named = entry.columns.get("messages")
    return named or next((column for column in words.columns if column in row), words.columns[0])


def with_system(row: Mapping[str, Any], entry: DatasetEntry, messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The messages with the system column's text in front; a leading system turn goes first."""
    column, value = optional(row, entry, "system", "system")
    system = text(value, column)
    if not system or (messages and messages[0].role == "system"):
        return messages
    return (Message("system", system), *messages)


def holds_something(messages: Sequence[Message]) -> bool:
    """Whether a conversation is more than a system text, and if it has answers, one that says something."""
    answered = False
    for message in messages:
        if message.role == "assistant":
            if message.content or message.tool_calls or message.reasoning:
                return True
            answered = True
    return not answered and any(message.role != "system" for message in messages)


def says_something(answers: Sequence[Message]) -> bool:
    return any(answer.content or answer.tool_calls or answer.reasoning for answer in answers)


# Turns


def read_turns(value: Any, column: str, words: Words, media: MediaColumns) -> tuple[Message, ...]:
    """The messages of a list of turns or of its JSON text, none for null. Raises DataError with column and turn."""
    if value is None or value == "":
        return ()
    value = spelt_out(value, column)
    if not isinstance(value, (list, tuple)):
        raise DataError(f"{column}: expected a list of turns, found {short(value)}")
    messages = _messages(value, column, words, media)
    for message in messages:
        if message.role == "tool":
            raise DataError(f"{column}: begins with a tool's result, before any question or call")
        if message.role != "system":
            break
    return messages


def _messages(turns: Sequence[Any], column: str, words: Words, media: MediaColumns) -> tuple[Message, ...]:
    """The message of each turn. Nearly all have a role and a text and no more, and there are so many of them."""
    role_key, content_key, roles = words.role_keys[0], words.content_keys[0], words.roles
    plain = not media.waiting
    messages: list[Message] = []
    for number, turn in enumerate(turns, start=1):
        if plain and turn.__class__ is dict and len(turn) == 2:
            word, content = turn.get(role_key), turn.get(content_key)
            if word.__class__ is str and content.__class__ is str and content and content.isascii():
                role = roles.get(word)
                if role and role != CALL:
                    messages.append(Message(cast("Role", role), content))
                    continue
        messages.append(message_of(turn, column, number, words, media))
    return tuple(messages)


def message_of(turn: Any, column: str, number: int, words: Words, media: MediaColumns) -> Message:
    """One turn. Raises DataError."""
    if type(turn) is not dict and not isinstance(turn, Mapping):
        raise DataError(f"{column}, turn {number}: expected an object, found {short(turn)}")
    word = content = None
    for key in words.role_keys:
        if key in turn:
            word = turn[key]
            break
    role = words.roles.get(word) if isinstance(word, str) else None
    if role is None:
        known = ", ".join(words.roles)
        raise DataError(
            f"{column}, turn {number}: {key}: expected one of {known}, found {short(word)}. Name others under tags"
        )
    for key in words.content_keys:
        if key in turn:
            content = turn[key]
            break
    if content and type(content) is str and len(turn) == 2 and role != CALL:
        if not content.isascii():
            text(content, f"{column}, turn {number}")
        return Message(cast("Role", role), media.content(content) if media.waiting else content)
    return _full_message(turn, role, content, f"{column}, turn {number}", media)


def _full_message(turn: Mapping[str, Any], role: str, value: Any, what: str, media: MediaColumns) -> Message:
    """A turn that has more than a role and a text."""
    trained, weight = weight_of(turn, what) if len(turn) > 2 else (None, 1.0)
    content: Content
    if role == CALL:
        content = calls_in_text(text(value, what), what)
        role = "assistant"
    else:
        content = content_of(value, what, media)
    if role != "assistant":
        number = turn.get("tool_call_id") if role == "tool" else None
        if number is not None and not isinstance(number, str):
            raise DataError(f"{what}: tool_call_id: expected text, found {short(number)}")
        if content.calls:
            raise DataError(f"{what}: calls tools, which only the assistant does")
        return Message(cast("Role", role), content.said, trained=trained, weight=weight, call_id=number or None)
    calls = content.calls + calls_of(turn.get("tool_calls"), f"{what}: tool_calls")
    if turn.get("function_call"):  # what the OpenAI API had before tool_calls
        calls += calls_of(turn["function_call"], f"{what}: function_call")
    reasoning = next((text(turn[key], f"{what}: {key}") for key in REASONING if turn.get(key)), "") or content.reasoning
    if trained is None and not (content.said or calls or reasoning):
        trained = False  # an empty answer is nobody's intent
    return Message("assistant", content.said, reasoning or None, calls, trained, weight)


THOUGHT = re.compile(r"\s*<think>(.*?)</think>\s*", re.DOTALL)
WRAPPED = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
MAYBE_JSON = re.compile(r"^\s*[\[{]", re.MULTILINE)


def calls_in_text(value: str, what: str) -> Content:
    """What a turn says whose text ends with calls: a thought, words, and JSON, bare or between ``<tool_call>`` marks.

    Raises DataError when there is no call in it.
    """
    thought = THOUGHT.match(value)
    rest = value[thought.end() :] if thought else value
    reasoning = thought[1].strip() if thought else ""
    if blocks := WRAPPED.findall(rest):
        before, after = rest.split("<tool_call>", 1)[0].strip(), rest.rsplit("</tool_call>", 1)[1].strip()
        if after:
            raise DataError(f"{what}: says {short(after)} after its calls")
        return Content(before, reasoning, tuple(call for block in blocks for call in _called(block, what)))
    problem: DataError | None = None
    for start in [0, *(match.start() for match in MAYBE_JSON.finditer(rest) if match.start())]:
        try:
            return Content(rest[:start].strip(), reasoning, _called(rest[start:], what))
        except DataError as error:
            problem = problem or error
        if start > LONGEST_WORDS:
            break
    raise problem or DataError(f"{what}: holds no call")


LONGEST_WORDS = 100_000
"""Characters before a call, beyond which nobody looks for its JSON: each line may be its start."""


def _called(value: str, what: str) -> tuple[ToolCall, ...]:
    calls = calls_of(value, what)
    if not calls:
        raise DataError(f"{what}: expected the JSON of a call, found {short(value)}")
    return calls


# Pairs


def _pair(row: Mapping[str, Any], entry: DatasetEntry, words: Words, media: MediaColumns) -> PairExample | None:
    """A prompt with two answers. Without a column for the prompt both hold it, and what differs are the answers."""
    column = _column(row, entry, words)
    has_prompt = column in row or "messages" in entry.columns
    prompt: tuple[Message, ...] = ()
    if has_prompt:
        value = cell(row, column)
        prompt = _prompt(value, column, words, media)
    answers = []
    for name in ("chosen", "rejected"):
        one = entry.columns.get(name) or name
        answers.append((one, _answer(cell(row, one), one, words, media)))
    (good, chosen), (bad, rejected) = answers
    media.check_used()
    if not has_prompt:
        num = num_shared(chosen, rejected)
        prompt, chosen, rejected = chosen[:num], chosen[num:], rejected[num:]
    elif prompt and len(chosen) > len(prompt) and chosen[: len(prompt)] == prompt == rejected[: len(prompt)]:
        chosen, rejected = chosen[len(prompt) :], rejected[len(prompt) :]
    for one, answer in ((good, chosen), (bad, rejected)):
        if answer and (answer[0].role != "assistant" or any(turn.role in ("user", "system") for turn in answer)):
            raise DataError(f"{one}: expected an answer of the assistant, found a turn of {answer[0].role}")
    if not (says_something(chosen) and says_something(rejected)) or not holds_something(prompt):
        return None
    tools = tools_in(row, entry)
    return PairExample(with_system(row, entry, prompt), chosen, rejected, tools)


def _prompt(value: Any, column: str, words: Words, media: MediaColumns) -> tuple[Message, ...]:
    if isinstance(value, str):
        return (Message("user", media.content(text(value, column))),) if value else ()
    return read_turns(value, column, words, media)


def _answer(value: Any, column: str, words: Words, media: MediaColumns) -> tuple[Message, ...]:
    if isinstance(value, str):
        return (Message("assistant", media.content(text(value, column))),) if value else ()
    return read_turns([value] if isinstance(value, Mapping) else value, column, words, media)


def num_shared(chosen: Sequence[Message], rejected: Sequence[Message]) -> int:
    """How many messages two conversations begin with alike, up to the last answer of the shorter."""
    most = min(len(chosen), len(rejected)) - 1
    return next((i for i in range(most) if chosen[i] != rejected[i]), max(most, 0))
