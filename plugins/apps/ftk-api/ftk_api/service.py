"""What the routes share: the model under its names, and answers that are counted."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

from fastapi import Request
from ftk import Prompt, Reply, Sampling

from ftk_api import ApiOptions
from ftk_api.counting import Counts
from ftk_api.desk import Desk
from ftk_api.prompts import Fetch
from ftk_api.refusals import Refusal
from ftk_api.waiting import together, while_there


class Service:
    """What the routes share. name: of the model; its engine's adapters are models beside it."""

    def __init__(
        self,
        desk: Desk,
        template: Any,
        tokenizer: Any,
        name: str,
        sampling: Sampling,
        options: ApiOptions,
        fetch: Fetch,
    ) -> None:
        self.desk, self.template, self.tokenizer, self.name = desk, template, tokenizer, name
        self.sampling, self.options, self.fetch = sampling, options, fetch
        self.counts = Counts()
        self.created = int(time.time())

    @property
    def models(self) -> list[str]:
        return [self.name, *getattr(self.desk.engine, "adapters", ())]

    def adapter(self, model: str) -> str | None:
        """The adapter that a request's model is. Raises Refusal for one that is not there."""
        if model in ("", self.name):
            return None
        if model in self.models:
            return model
        raise Refusal(404, f"there is no model {model}. There are {', '.join(self.models)}", "model", "model_not_found")

    async def pieces(self, prompt: Prompt, sampling: Sampling, pieces: bool = True) -> AsyncIterator[str | Reply]:
        """An answer's pieces and its reply, counted."""
        began = time.monotonic()
        first = True
        async with aclosing(self.desk.stream(prompt, sampling, pieces)) as stream:
            async for item in stream:
                if first:
                    self.counts.first.observe(time.monotonic() - began)
                    first = False
                if isinstance(item, Reply):
                    self.counts.answered(item, time.monotonic() - began)
                yield item

    async def reply(self, prompt: Prompt, sampling: Sampling) -> Reply:
        async with aclosing(self.pieces(prompt, sampling, pieces=False)) as stream:
            async for item in stream:
                if isinstance(item, Reply):
                    return item
        raise RuntimeError("the engine ended an answer without a reply")

    async def all(self, asked: Sequence[tuple[Prompt, Sampling]], request: Request) -> list[Reply]:
        """The replies to all, given up when the client goes away or one of them fails."""
        return await while_there(request, together([self.reply(*one) for one in asked]))
