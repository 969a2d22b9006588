"""From a request to what an engine answers: a prompt and a way of sampling."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ftk import DataError, DatasetEntry, Media, Message, Prompt, Sampling, Text
from ftk_data import turns
from ftk_data.converting import MediaColumns, tools_of

from ftk_api.refusals import Refusal

if TYPE_CHECKING:
    from ftk_api.requests import Asked, ChatRequest, CompletionRequest

ROLES = {
    "system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool",
    "function": "tool",
}  # fmt: skip
LAYOUT = turns.Layout(("messages",), ("role",), ("content",), ROLES)
NOTHING = DatasetEntry("request", {}, "request", "")

MOST_MEDIA = 32
"""Media of one request."""
Fetch = Callable[[Media], Media]
"""``fetch(medium) -> medium`` whose source is bytes or a data URI. Raises Refusal for what may not be read."""


def messages_of(said: Sequence[Mapping[str, Any]], fetch: Fetch) -> tuple[Message, ...]:
    """The messages of a request. Raises Refusal for what cannot be read."""
    media = MediaColumns({}, NOTHING)
    try:
        messages = turns.read_turns(said, "messages", turns.Words.of(LAYOUT, NOTHING), media)
    except DataError as error:
        raise Refusal(400, str(error), "messages") from error
    shown = sum(isinstance(part, Media) for one in messages for part in one.content if not isinstance(part, str))
    if shown > MOST_MEDIA:
        raise Refusal(400, f"messages: shows {shown} media; {MOST_MEDIA} are read", "messages")
    return tuple(replace(one, content=_fetched(one.content, fetch)) for one in messages)


def _fetched(content: str | tuple[Text | Media, ...], fetch: Fetch) -> str | tuple[Text | Media, ...]:
    if isinstance(content, str):
        return content
    return tuple(fetch(part) if isinstance(part, Media) else part for part in content)


def chat_prompt(asked: ChatRequest, fetch: Fetch) -> Prompt:
    """The prompt of a conversation. Raises Refusal."""
    messages = messages_of(asked.messages, fetch)
    if messages[-1].role == "assistant":
        raise Refusal(400, "messages: the last one is the assistant's, so there is nothing to answer", "messages")
    tools = asked.tools or []
    choice = asked.tool_choice
    if choice is not None and choice not in ("none", "auto") and not tools:
        raise Refusal(400, "tool_choice: asks for a call, but there are no tools", "tool_choice")
    if choice == "none":
        tools = []
    if choice is not None and not isinstance(choice, str):
        tools = [one for one in tools if (one.get("function") or one).get("name") == choice.function.name]
        if not tools:
            raise Refusal(400, f"tool_choice: there is no tool {choice.function.name}", "tool_choice")
    try:
        return Prompt(messages, tools_of(tools, "tools") if tools else ())
    except DataError as error:
        raise Refusal(400, str(error), "tools") from error


def raw_prompts(asked: CompletionRequest) -> list[Prompt]:
    """The prompts of a completion: texts, or the numbers of tokens."""
    given = asked.prompt
    if isinstance(given, str):
        return [Prompt((), text=given)]
    if isinstance(given[0], int):
        return [Prompt((), text=tuple(given))]  # type: ignore[arg-type]
    return [Prompt((), text=one if isinstance(one, str) else tuple(one)) for one in given]  # type: ignore[arg-type]


def sampling_of(asked: Asked, server: Sampling, most: int, max_tokens: int | None, **more: Any) -> Sampling:
    """How an answer is sampled: as the request says, else as the server's YAML does. ``most``: tokens at most."""
    said = {
        "temperature": asked.temperature, "top_p": asked.top_p, "min_p": asked.min_p,
        "top_k": None if asked.top_k is None else max(asked.top_k, 0), "repetition_penalty": asked.repetition_penalty,
        "presence_penalty": asked.presence_penalty, "frequency_penalty": asked.frequency_penalty, "seed": asked.seed,
        "skip_special_tokens": asked.skip_special_tokens,
    }  # fmt: skip
    values = {key: value for key, value in said.items() if value is not None}
    sampling = replace(server, **values, **more, max_new_tokens=min(max_tokens or server.max_new_tokens, most))
    stops = (asked.stop,) if isinstance(asked.stop, str) else tuple(asked.stop or ())
    sampling = replace(sampling, stop=stops, stop_ids=tuple(asked.stop_token_ids or ()))
    if asked.temperature is not None:
        sampling = replace(sampling, do_sample=asked.temperature > 0)
    return sampling


def of_each(sampling: Sampling, number: int) -> Sampling:
    """The sampling of the ``number``-th answer to one request, which is another draw."""
    if sampling.seed is None or not number:
        return sampling
    return replace(sampling, seed=(sampling.seed + number * 1_000_003) % 2**63)
