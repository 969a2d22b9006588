"""Messages as chat templates take them, and where their reasoning stands."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ftk import Media, Message, Text

THINK_OPEN, THINK_CLOSE = "<think>\n", "\n</think>\n\n"
"""The marks that nearly all families have around reasoning."""


def as_dicts(
    messages: Sequence[Message],
    reasoning_key: str | None,
    *,
    text_arguments: bool = False,
    none_content: bool = False,
    lists: bool | None = None,
) -> list[dict[str, Any]]:
    """Messages in the form of the OpenAI API.

    reasoning_key: where a template looks for reasoning; empty puts it into the content, None leaves it out.
    text_arguments: the arguments of calls as JSON text, as that API sends them; most templates want them parsed.
    none_content: None instead of no text beside calls. lists: contents as lists of parts, also those that are plain
    text (True), or never where there is only text (False); None leaves them as they are.
    """
    made = []
    waiting: list[dict[str, Any]] = []
    for message in messages:
        one: dict[str, Any] = {"role": message.role, "content": _content(message, lists)}
        if message.reasoning and reasoning_key:
            one[reasoning_key] = message.reasoning
        elif message.reasoning and reasoning_key is not None:
            content = THINK_OPEN + message.reasoning.strip("\n") + THINK_CLOSE + message.text
            one["content"] = [{"type": "text", "text": content}] if lists else content
        if message.tool_calls:
            one["tool_calls"] = _calls(message, text_arguments)
            waiting = list(one["tool_calls"])
            if none_content and not one["content"]:
                one["content"] = None
        if message.role == "tool":
            one |= _answered(message, waiting)
        made.append(one)
    return made


def _answered(message: Message, waiting: list[dict[str, Any]]) -> dict[str, Any]:
    """Which call a tool turn answers, by its id, else the first that has no answer yet; that one waits no more."""
    found = next((call for call in waiting if call["id"] == message.call_id), waiting[0] if waiting else None)
    if found is None:
        return {"tool_call_id": message.call_id} if message.call_id else {}
    waiting.remove(found)
    return {"tool_call_id": found["id"], "name": found["function"]["name"]}


def _calls(message: Message, text_arguments: bool) -> list[dict[str, Any]]:
    """The calls of a message as the OpenAI API writes them. A missing id gets nine letters, as Mistral wants."""
    return [
        {
            "id": call.id or f"call{number:05d}",
            "type": "function",
            "function": {
                "name": call.name,
                "arguments": json.dumps(call.arguments, ensure_ascii=False) if text_arguments else dict(call.arguments),
            },
        }
        for number, call in enumerate(message.tool_calls, start=1)
    ]


def _content(message: Message, lists: bool | None) -> str | list[dict[str, str]]:
    content = message.content
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if lists else content
    if lists is False and not any(isinstance(part, Media) for part in content):
        return message.text
    return [{"type": part.kind} if isinstance(part, Media) else {"type": "text", "text": part.text} for part in content]


def with_text(message: Message, text: str) -> Message:
    """The message with other text, as a list of parts where it was one."""
    return replace(message, content=text if isinstance(message.content, str) else (Text(text),))


def reasoning_of(message: Message) -> str:
    """The reasoning of a message, also where it stands inside the content between ``<think>`` marks."""
    if message.reasoning:
        return message.reasoning
    before, close, _ = message.text.partition(THINK_CLOSE.strip())
    thought = before.rpartition(THINK_OPEN.strip())[2].strip("\n") if close else ""
    return thought if thought.strip() else ""


def with_reasoning(answer: str, reasoning: str, before: str, marks: tuple[str, str] = (THINK_OPEN, THINK_CLOSE)) -> str:
    """The answer with its reasoning: in the empty thought that it starts with, else in front of it.

    ``before`` is what the model has read; where it ends with an open thought the answer starts with the reasoning.
    """
    opening, closing = marks
    reasoning = reasoning.strip("\n")
    empty = re.match(re.escape(opening.strip()) + r"(\s*)" + re.escape(closing.strip()), answer)
    opened = opens(before, opening)
    if empty and not opened:
        half = empty.start(1) + len(empty[1]) // 2
        return answer[:half] + reasoning + answer[half:]
    if opened:  # what ends a thought that is empty
        empty = re.match(r"\s*" + re.escape(closing.strip()), answer) or empty
    answer = answer[empty.end() :] if empty else answer
    if opened and before.endswith(opening.strip()):  # DeepSeek V3.1 and its kind have no line breaks there
        return reasoning + closing.strip() + answer.lstrip("\n")
    return ("" if opened else opening) + reasoning + closing + answer.lstrip("\n")


def opens(text: str, opening: str) -> bool:
    """Whether a text ends with what opens a thought."""
    return text.rstrip().endswith(opening.strip())


def apart(message: Message) -> Message:
    """The message with the reasoning that its text begins with in its own field."""
    thought = reasoning_of(message)
    starts = message.role == "assistant" and message.text.lstrip().startswith(THINK_OPEN.strip())
    if message.reasoning or not thought or not starts:
        return message
    said = message.text.partition(THINK_CLOSE.strip())[2].lstrip("\n")
    return replace(with_text(message, said), reasoning=thought)


def without_reasoning(message: Message) -> Message:
    """The message without reasoning, wherever it stands."""
    if message.role != "assistant":
        return message
    content = message.content
    if isinstance(content, str) and THINK_CLOSE.strip() in content:
        content = content.rpartition(THINK_CLOSE.strip())[2].lstrip("\n")
    return replace(message, content=content, reasoning=None)
