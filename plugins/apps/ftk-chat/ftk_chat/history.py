"""Conversations as files: JSON in the messages of the OpenAI API, ``{"messages": [...], "tools": [...]}``.

https://platform.openai.com/docs/api-reference/chat; reasoning is ``reasoning_content``, as servers of open models do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftk import DataError, DatasetEntry, Media, Message, rundir
from ftk_data import turns
from ftk_data.converting import MediaColumns, tools_of
from ftk_data.messages import as_dicts

if TYPE_CHECKING:
    from ftk_chat.conversation import Conversation

ROLES = {
    "system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool",
    "function": "tool",
}  # fmt: skip
LAYOUT = turns.Layout(("messages",), ("role",), ("content",), ROLES)


def save(conversation: Conversation, path: Path) -> None:
    """Write a conversation aside and put it in its place. Raises CheckpointError when that cannot be done."""
    content: dict[str, Any] = {"messages": messages_json(conversation.whole())}
    if conversation.tools:
        content["tools"] = [dict(tool) for tool in conversation.tools]
    rundir.write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def load(conversation: Conversation, path: Path) -> None:
    """Go on with a conversation from a file. Raises DataError; then nothing has changed.

    The file's system text and tools take the place of those that were there, where it has any.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as cause:
        raise DataError(f"{path}: cannot be read: {getattr(cause, 'strerror', None) or cause}") from cause
    if isinstance(content, list):
        content = {"messages": content}
    if not isinstance(content, Mapping) or "messages" not in content:
        raise DataError(f'{path}: expected {{"messages": [...]}} or a list of messages')
    entry = DatasetEntry(path.name, {}, str(path), "")
    try:
        messages = turns.read_turns(
            content["messages"], "messages", turns.Words.of(LAYOUT, entry), MediaColumns({}, entry)
        )
        tools = tools_of(content["tools"], "tools") if content.get("tools") else conversation.tools
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    conversation.offer(tools)
    if messages and messages[0].role == "system":
        conversation.system = messages[0].text
        messages = messages[1:]
    conversation.messages = list(messages)


def messages_json(messages: tuple[Message, ...]) -> list[dict[str, Any]]:
    """Messages as the OpenAI API has them, media by their paths."""
    made = as_dicts(messages, "reasoning_content", text_arguments=True, none_content=True)
    for message, one in zip(messages, made, strict=True):
        if not isinstance(message.content, str):
            one["content"] = [
                {"type": f"{part.kind}_url", f"{part.kind}_url": {"url": str(part.source)}}
                if isinstance(part, Media)
                else {"type": "text", "text": part.text}
                for part in message.content
            ]
    return made
