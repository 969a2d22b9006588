"""``/v1/chat/completions``: conversations, whole or in events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from ftk import Message, Prompt, Reply, Sampling
from ftk_data.following import Follower

from ftk_api import replies
from ftk_api.calling import read_call, schema_of
from ftk_api.prompts import chat_prompt, of_each, sampling_of
from ftk_api.reading import StrictRoute
from ftk_api.refusals import Refusal
from ftk_api.requests import ChatRequest, NamedTool
from ftk_api.streaming import merged, streamed

if TYPE_CHECKING:
    from ftk_api.service import Service


@dataclass(frozen=True)
class Talk:
    """What one request asks for. forced: its answers are calls in JSON. most_calls: of each; more are dropped."""

    prompt: Prompt
    samplings: tuple[Sampling, ...]
    model: str
    forced: bool
    most_calls: int | None
    tells_usage: bool

    def read(self, service: Service, text: str) -> Message:
        return self.cut(read_call(text) if self.forced else service.template.read(text, self.prompt.tools))

    def cut(self, message: Message) -> Message:
        return replace(message, tool_calls=message.tool_calls[: self.most_calls])


def talk_of(asked: ChatRequest, service: Service) -> Talk:
    """Raises Refusal. Takes as long as it takes to fetch media."""
    adapter = service.adapter(asked.model)
    if asked.top_logprobs and not asked.logprobs:
        raise Refusal(400, "top_logprobs: wants logprobs to be true", "top_logprobs")
    prompt = chat_prompt(asked, service.fetch)
    schema = asked.response_format.schema_asked if asked.response_format else None
    forced = asked.tool_choice == "required" or isinstance(asked.tool_choice, NamedTool)
    if forced and schema is not None:
        raise Refusal(400, "tool_choice: an answer cannot be a call and follow response_format", "tool_choice")
    sampling = sampling_of(
        asked, service.sampling, service.options.api_max_tokens, asked.max_completion_tokens or asked.max_tokens,
        adapter=adapter, schema=schema_of(prompt.tools) if forced else schema,
        logprobs=(asked.top_logprobs or 0) if asked.logprobs else None,
    )  # fmt: skip
    samplings = tuple(of_each(sampling, number) for number in range(asked.n))
    most_calls = 0 if asked.tool_choice == "none" else 1 if asked.parallel_tool_calls is False else None
    tells_usage = bool(asked.stream_options and asked.stream_options.include_usage)
    return Talk(prompt, samplings, asked.model or service.name, forced, most_calls, tells_usage)


def chat_routes(service: Service) -> APIRouter:
    router = APIRouter(route_class=StrictRoute)

    @router.post("/v1/chat/completions")
    async def chat(asked: ChatRequest, request: Request) -> Response:
        shows = any(not isinstance(one.get("content"), str) for one in asked.messages)
        talk = await asyncio.to_thread(talk_of, asked, service) if shows else talk_of(asked, service)
        each = [(talk.prompt, sampling) for sampling in talk.samplings]
        if asked.stream:
            return await streamed(_events(service, talk), request)
        answers = await service.all(each, request)
        choices = []
        for index, reply in enumerate(answers):
            logprobs = replies.chat_logprobs(reply, service.tokenizer)
            choices.append(replies.chat_choice(index, talk.read(service, reply.text), reply, logprobs))
        head = replies.Head("chat.completion", talk.model)
        return JSONResponse(head.of(choices, usage=replies.usage(answers, asked.n)))

    return router


async def _events(service: Service, talk: Talk) -> AsyncIterator[str]:
    head = replies.Head("chat.completion.chunk", talk.model)
    each = [(talk.prompt, sampling) for sampling in talk.samplings]
    followers = [None if talk.forced else Follower(service.template, talk.prompt.tools) for _ in each]
    done: dict[int, Reply] = {}
    begun = False
    async with aclosing(merged(service, each)) as news:
        async for number, item in news:
            if not begun:
                begun = True
                for index in range(len(each)):
                    yield replies.event(head.of([_delta(index, {"role": "assistant", "content": ""})]))
            follower = followers[number]
            deltas: list[dict[str, Any]] = []
            if not isinstance(item, Reply):
                deltas += replies.chat_deltas(number, list(follower.push(item))) if follower else ()
            else:
                done[number] = item
                deltas += _end(service, talk, number, item, follower)
            if deltas:
                yield "".join(replies.event(head.of([delta])) for delta in deltas)
    if talk.tells_usage:
        yield replies.event(head.of([], usage=replies.usage([done[one] for one in sorted(done)], len(each))))
    yield replies.event("[DONE]")


def _end(service: Service, talk: Talk, number: int, reply: Reply, follower: Follower | None) -> list[dict[str, Any]]:
    """What is told at the end of an answer."""
    deltas: list[dict[str, Any]] = []
    if follower is None:
        message = talk.read(service, reply.text)
        if message.text:
            deltas.append(_delta(number, {"content": message.text}))
    else:
        deltas += replies.chat_deltas(number, list(follower.finish()))
        message = talk.cut(follower.message)
    deltas += replies.call_deltas(number, message.tool_calls)
    logprobs = replies.chat_logprobs(reply, service.tokenizer)
    return [*deltas, _delta(number, {}, replies.finish_of(message, reply), logprobs)]


def _delta(index: int, delta: dict[str, Any], finish: str | None = None, logprobs: Any = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
