"""Answers in server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from fastapi import Request
from fastapi.responses import Response, StreamingResponse
from ftk import FtkError, Prompt, Reply, Sampling

from ftk_api import replies
from ftk_api.refusals import Refusal
from ftk_api.waiting import while_there

if TYPE_CHECKING:
    from ftk_api.service import Service


async def streamed(events: AsyncIterator[str], request: Request) -> Response:
    """A response of events. What is wrong before the first one is an error with a status, as without a stream."""
    try:
        first = await while_there(request, anext(events))  # type: ignore[arg-type]
    except BaseException:
        await events.aclose()  # type: ignore[attr-defined]
        raise

    async def all_events() -> AsyncIterator[str]:
        async with aclosing(events):  # type: ignore[type-var]
            yield first
            try:
                async for one in events:
                    yield one
            except (Refusal, FtkError) as error:  # the status has been sent
                refusal = error if isinstance(error, Refusal) else Refusal(500, str(error))
                yield replies.event(refusal.body())

    return StreamingResponse(all_events(), media_type="text/event-stream", headers={"cache-control": "no-cache"})


async def merged(service: Service, each: Sequence[tuple[Prompt, Sampling]]) -> AsyncIterator[tuple[int, str | Reply]]:
    """(which, piece or reply) of several answers, as they come."""
    if len(each) == 1:
        async with aclosing(service.pieces(*each[0])) as stream:
            async for item in stream:
                yield 0, item
        return
    news: asyncio.Queue[tuple[int, Any]] = asyncio.Queue()

    async def follow(number: int, prompt: Prompt, sampling: Sampling) -> None:
        try:
            async with aclosing(service.pieces(prompt, sampling)) as stream:
                async for item in stream:
                    news.put_nowait((number, item))
        except Exception as error:
            news.put_nowait((number, error))

    tasks = [asyncio.create_task(follow(number, *one)) for number, one in enumerate(each)]
    left = len(tasks)
    try:
        while left:
            number, item = await news.get()
            if isinstance(item, Exception):
                raise item
            left -= isinstance(item, Reply)
            yield number, item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
