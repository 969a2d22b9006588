"""From an engine's answers to the JSON of the OpenAI API: whole, or in events as they come."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ftk import Message, Reply, ToolCall
from ftk_data.following import Said

FIELDS = {"reasoning": "reasoning_content", "content": "content"}


@dataclass
class Head:
    """What all parts of one response begin with."""

    kind: str
    model: str
    id: str = ""
    created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self.id = self.id or f"{'chatcmpl' if self.kind.startswith('chat') else 'cmpl'}-{uuid.uuid4().hex}"

    def of(self, choices: Sequence[dict[str, Any]], **more: Any) -> dict[str, Any]:
        return {
            "id": self.id, "object": self.kind, "created": self.created, "model": self.model, "choices": list(choices),
            **more,
        }  # fmt: skip


def usage(replies: Sequence[Reply], n: int) -> dict[str, int]:
    """Tokens of a request's prompts, which have ``n`` answers each, and of all answers."""
    prompt, said = sum(reply.num_prompt_tokens for reply in replies[::n]), sum(reply.num_tokens for reply in replies)
    return {"prompt_tokens": prompt, "completion_tokens": said, "total_tokens": prompt + said}


def chat_choice(index: int, message: Message, reply: Reply, logprobs: Any) -> dict[str, Any]:
    """A whole answer."""
    said: dict[str, Any] = {"role": "assistant", "content": message.text or (None if message.tool_calls else "")}
    if message.reasoning:
        said["reasoning_content"] = message.reasoning
    if message.tool_calls:
        said["tool_calls"] = [call_json(call) for call in message.tool_calls]
    return {"index": index, "message": said, "logprobs": logprobs, "finish_reason": finish_of(message, reply)}


def call_json(call: ToolCall, **more: Any) -> dict[str, Any]:
    arguments = json.dumps(dict(call.arguments), ensure_ascii=False)
    name = {"name": call.name, "arguments": arguments}
    return {**more, "id": call.id or f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": name}


def finish_of(message: Message, reply: Reply) -> str:
    return "tool_calls" if message.tool_calls else reply.finish


def chat_deltas(index: int, said: Sequence[Said]) -> Iterator[dict[str, Any]]:
    """Pieces of an answer."""
    for one in said:
        yield {"index": index, "delta": {FIELDS[one.kind]: one.text}, "logprobs": None, "finish_reason": None}


def call_deltas(index: int, calls: Sequence[ToolCall]) -> Iterator[dict[str, Any]]:
    """The calls of an answer, each in one piece."""
    for number, call in enumerate(calls):
        delta = {"tool_calls": [call_json(call, index=number)]}
        yield {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}


def chat_logprobs(reply: Reply, tokenizer: Any) -> dict[str, Any] | None:
    """The log-probabilities of an answer's tokens as chat completions have them."""
    told = reply.meta.get("logprobs")
    if told is None:
        return None
    return {"content": [_told(one, tokenizer) for one in told], "refusal": None}


def _told(one: Sequence[tuple[int, float]], tokenizer: Any) -> dict[str, Any]:
    (token, value), *others = one
    return {**_token(token, value, tokenizer), "top_logprobs": [_token(*other, tokenizer) for other in others]}


def _token(token: int, value: float, tokenizer: Any) -> dict[str, Any]:
    text = str(tokenizer.decode([token], skip_special_tokens=False))
    return {"token": text, "logprob": max(value, -9999.0), "bytes": list(text.encode())}


def text_logprobs(reply: Reply, tokenizer: Any) -> dict[str, Any] | None:
    """The same as completions have them."""
    told = reply.meta.get("logprobs")
    if told is None:
        return None
    texts = [str(tokenizer.decode([one[0][0]], skip_special_tokens=False)) for one in told]
    starts = [sum(map(len, texts[:number])) for number in range(len(texts))]
    best = [
        {str(tokenizer.decode([token], skip_special_tokens=False)): max(value, -9999.0) for token, value in one[1:]}
        for one in told
    ]
    values = [max(one[0][1], -9999.0) for one in told]
    return {"tokens": texts, "token_logprobs": values, "top_logprobs": best, "text_offset": starts}


def event(content: Any) -> str:
    """A server-sent event."""
    return f"data: {content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)}\n\n"
