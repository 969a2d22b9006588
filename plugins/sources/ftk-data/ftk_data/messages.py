"""Messages as chat templates take them, and where their reasoning stands."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ftk import Media, Message

THINK_OPEN, THINK_CLOSE = "<think>\n", "\n</think>\n\n"
"""The marks that nearly all families have around reasoning."""


def as_dicts(messages: Sequence[Message], reasoning_key: str, *, text_arguments: bool = False) -> list[dict[str, Any]]:
    """Messages in the form of the OpenAI API.

    reasoning_key: where a template looks for reasoning; empty puts it into the content. text_arguments: the arguments
    of calls as JSON text, as that API sends them; most templates want them parsed.
    """
    made = []
    waiting: list[dict[str, Any]] = []
    for message in messages:
        one: dict[str, Any] = {"role": message.role, "content": _content(message)}
        if message.reasoning and reasoning_key:
            one[reasoning_key] = message.reasoning
        elif message.reasoning:
            one["content"] = THINK_OPEN + message.reasoning.strip("\n") + THINK_CLOSE + message.text
        if message.tool_calls:
            waiting = one["tool_calls"] = _calls(message, text_arguments)
        if message.role == "tool" and waiting:  # results come in the order of the calls
            call, *waiting = waiting
            one |= {"tool_call_id": call["id"], "name": call["function"]["name"]}
        made.append(one)
    return made


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


def _content(message: Message) -> str | list[dict[str, str]]:
    if isinstance(message.content, str):
        return message.content
    return [
        {"type": part.kind} if isinstance(part, Media) else {"type": "text", "text": part.text}
        for part in message.content
    ]


def reasoning_of(message: Message) -> str:
    """The reasoning of a message, also where it stands inside the content between ``<think>`` marks."""
    if message.reasoning:
        return message.reasoning
    before, close, _ = message.text.partition(THINK_CLOSE.strip())
    return before.replace(THINK_OPEN.strip(), "").strip() if close else ""


def with_reasoning(answer: str, reasoning: str, before: str) -> str:
    """The answer with its reasoning: in the empty thought that it starts with, else in front of it."""
    empty = re.match(r"<think>(\s*)</think>", answer)
    if empty:
        half = empty.start(1) + len(empty[1]) // 2
        return answer[:half] + reasoning.strip("\n") + answer[half:]
    opening = "" if before.endswith(THINK_OPEN) else THINK_OPEN
    return opening + reasoning.strip("\n") + THINK_CLOSE + answer.lstrip("\n")


def without_reasoning(message: Message) -> Message:
    """The message without reasoning, wherever it stands."""
    if message.role != "assistant":
        return message
    content = message.content
    if isinstance(content, str) and THINK_CLOSE.strip() in content:
        content = content.rpartition(THINK_CLOSE.strip())[2].lstrip("\n")
    return replace(message, content=content, reasoning=None)
