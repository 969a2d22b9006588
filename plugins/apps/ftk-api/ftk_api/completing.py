"""``/v1/completions``: text that is gone on with, without a template."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from ftk import Prompt, Reply, Sampling

from ftk_api import replies
from ftk_api.prompts import of_each, raw_prompts, sampling_of
from ftk_api.reading import StrictRoute
from ftk_api.refusals import Refusal
from ftk_api.requests import MOST_PROMPTS, CompletionRequest
from ftk_api.streaming import merged, streamed

if TYPE_CHECKING:
    from ftk_api.service import Service

Each = Sequence[tuple[Prompt, Sampling]]


def completion_routes(service: Service) -> APIRouter:
    router = APIRouter(route_class=StrictRoute)

    @router.post("/v1/completions")
    async def complete(asked: CompletionRequest, request: Request) -> Response:
        adapter = service.adapter(asked.model)
        prompts = raw_prompts(asked)
        if len(prompts) * asked.n > MOST_PROMPTS:
            raise Refusal(400, f"n: {len(prompts)} prompts with {asked.n} answers each; {MOST_PROMPTS} are made", "n")
        if asked.echo and asked.logprobs is not None:
            raise Refusal(400, "echo: log-probabilities of a prompt are not told; leave one of the two out", "echo")
        sampling = sampling_of(
            asked, service.sampling, service.options.api_max_tokens, asked.max_tokens,
            adapter=adapter, logprobs=asked.logprobs,
        )  # fmt: skip
        each = [(prompt, of_each(sampling, number)) for prompt in prompts for number in range(asked.n)]
        model = asked.model or service.name
        if asked.stream:
            return await streamed(_events(service, each, asked, model), request)
        answers = await service.all(each, request)
        choices = []
        for index, ((prompt, _), reply) in enumerate(zip(each, answers, strict=True)):
            text = (_echo(prompt, service) if asked.echo else "") + reply.text
            choices.append(_choice(index, text, reply, service))
        head = replies.Head("text_completion", model)
        return JSONResponse(head.of(choices, usage=replies.usage(answers, asked.n)))

    return router


def _echo(prompt: Prompt, service: Service) -> str:
    if isinstance(prompt.text, str):
        return prompt.text
    return str(service.tokenizer.decode(list(prompt.text or ()), skip_special_tokens=False))


def _choice(index: int, text: str, reply: Reply | None, service: Service) -> dict[str, Any]:
    logprobs = replies.text_logprobs(reply, service.tokenizer) if reply else None
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reply.finish if reply else None}


async def _events(service: Service, each: Each, asked: CompletionRequest, model: str) -> AsyncIterator[str]:
    head = replies.Head("text_completion", model)
    done: dict[int, Reply] = {}
    begun: set[int] = set()
    async with aclosing(merged(service, each)) as news:
        async for number, item in news:
            if asked.echo and number not in begun:
                begun.add(number)
                yield replies.event(head.of([_choice(number, _echo(each[number][0], service), None, service)]))
            reply = item if isinstance(item, Reply) else None
            done |= {number: reply} if reply else {}
            text = "" if isinstance(item, Reply) else item
            yield replies.event(head.of([_choice(number, text, reply, service)]))
    if asked.stream_options and asked.stream_options.include_usage:
        yield replies.event(head.of([], usage=replies.usage([done[one] for one in sorted(done)], asked.n)))
    yield replies.event("[DONE]")
