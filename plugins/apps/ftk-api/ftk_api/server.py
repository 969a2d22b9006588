"""The routes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from ftk import DataError, FtkError, Message, Prompt, Reply, Sampling
from ftk_data.following import Follower
from starlette.exceptions import HTTPException

from ftk_api import ApiOptions, replies
from ftk_api.counting import Counts
from ftk_api.desk import Desk
from ftk_api.prompts import Fetch, chat_prompt, messages_of, of_each, raw_prompts, sampling_of
from ftk_api.refusals import Refusal
from ftk_api.requests import ChatRequest, CompletionRequest, EmbeddingRequest, ScoreRequest

Leaves = Callable[[], Any]


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

    async def pieces(self, prompt: Prompt, sampling: Sampling) -> AsyncIterator[str | Reply]:
        """An answer's pieces and its reply, counted."""
        began = time.monotonic()
        first = True
        async with aclosing(self.desk.stream(prompt, sampling)) as stream:
            async for item in stream:
                if first:
                    self.counts.first.observe(time.monotonic() - began)
                    first = False
                if isinstance(item, Reply):
                    self.counts.answered(item, time.monotonic() - began)
                yield item

    async def reply(self, prompt: Prompt, sampling: Sampling) -> Reply:
        async with aclosing(self.pieces(prompt, sampling)) as stream:
            async for item in stream:
                if isinstance(item, Reply):
                    return item
        raise RuntimeError("the engine ended an answer without a reply")

    async def all(self, asked: Sequence[tuple[Prompt, Sampling]], request: Request) -> list[Reply]:
        """The replies to all, given up when the client goes away."""
        work = asyncio.gather(*(self.reply(*one) for one in asked))
        leaving = asyncio.create_task(_left(request))
        try:
            await asyncio.wait({work, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise Refusal(400, "the client went away")
            return await work
        finally:
            leaving.cancel()
            work.cancel()


async def _left(request: Request) -> None:
    while not await request.is_disconnected():
        await asyncio.sleep(0.1)


def make_app(service: Service) -> FastAPI:
    """The application. Its routes are described at ``/openapi.json``."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.desk.shut()

    app = FastAPI(title="ftk api", docs_url=None, redoc_url=None, lifespan=lifespan)
    _add_errors(app)
    _add_facts(app, service)

    @app.post("/v1/chat/completions")
    async def chat(asked: ChatRequest, request: Request) -> Response:
        prompt = await asyncio.to_thread(chat_prompt, asked, service.fetch)
        sampling = sampling_of(
            asked, service.sampling, service.options.api_max_tokens, asked.max_completion_tokens or asked.max_tokens,
            adapter=service.adapter(asked.model), schema=_schema(asked),
            logprobs=(asked.top_logprobs or 0) if asked.logprobs else None,
        )  # fmt: skip
        each = [(prompt, of_each(sampling, number)) for number in range(asked.n)]
        model = asked.model or service.name
        if asked.stream:
            options = asked.stream_options
            events = _chat_events(service, each, model, bool(options and options.include_usage))
            return await _streamed(events)
        answers = await service.all(each, request)
        choices = []
        for index, reply in enumerate(answers):
            message = service.template.read(reply.text, prompt.tools)
            logprobs = replies.chat_logprobs(reply, service.tokenizer)
            choices.append(replies.chat_choice(index, message, reply, logprobs))
        head = replies.Head("chat.completion", model)
        return JSONResponse(head.of(choices, usage=replies.usage(answers)))

    @app.post("/v1/completions")
    async def complete(asked: CompletionRequest, request: Request) -> Response:
        prompts = raw_prompts(asked)
        sampling = sampling_of(
            asked, service.sampling, service.options.api_max_tokens, asked.max_tokens,
            adapter=service.adapter(asked.model), logprobs=asked.logprobs,
        )  # fmt: skip
        each = [(prompt, of_each(sampling, number)) for prompt in prompts for number in range(asked.n)]
        model = asked.model or service.name
        if asked.stream:
            options = asked.stream_options
            return await _streamed(_text_events(service, each, model, bool(options and options.include_usage)))
        answers = await service.all(each, request)
        choices = []
        for index, ((prompt, _), reply) in enumerate(zip(each, answers, strict=True)):
            text = prompt.text if asked.echo and isinstance(prompt.text, str) else ""
            logprobs = replies.text_logprobs(reply, service.tokenizer)
            choices.append(
                {"index": index, "text": text + reply.text, "logprobs": logprobs, "finish_reason": reply.finish}
            )
        prompt_tokens = sum(reply.num_prompt_tokens for reply in answers[:: asked.n])
        said = sum(reply.num_tokens for reply in answers)
        counted = {"prompt_tokens": prompt_tokens, "completion_tokens": said, "total_tokens": prompt_tokens + said}
        return JSONResponse(replies.Head("text_completion", model).of(choices, usage=counted))

    @app.post("/v1/score")
    async def score(asked: ScoreRequest) -> Response:
        service.adapter(asked.model)
        prompts = [Prompt(messages_of(one, service.fetch)) for one in asked.messages]
        scores = await service.desk.call(service.desk.engine.score, prompts)
        data = [{"object": "score", "index": index, "score": score} for index, score in enumerate(scores)]
        return JSONResponse({"object": "list", "model": asked.model or service.name, "data": data})

    @app.post("/v1/embeddings")
    async def embed(asked: EmbeddingRequest) -> Response:
        make = getattr(service.desk.engine, "embed", None)
        if make is None:
            raise Refusal(501, f"{service.name} makes no embeddings", "model")
        texts = [asked.input] if isinstance(asked.input, str) else asked.input
        vectors = await service.desk.call(make, texts)
        data = [{"object": "embedding", "index": index, "embedding": one} for index, one in enumerate(vectors)]
        return JSONResponse({"object": "list", "model": asked.model or service.name, "data": data})

    return app


def _schema(asked: ChatRequest) -> dict[str, Any] | None:
    wanted = asked.response_format
    if wanted is None or wanted.type == "text":
        return None
    return wanted.json_schema.json_schema if wanted.json_schema else {}


async def _streamed(events: AsyncIterator[str]) -> Response:
    """A response of events. What is wrong before the first one is an error with a status, as without a stream."""
    first = await anext(events)

    async def all_events() -> AsyncIterator[str]:
        async with aclosing(events):  # type: ignore[type-var]
            yield first
            async for one in events:
                yield one

    return StreamingResponse(all_events(), media_type="text/event-stream", headers={"cache-control": "no-cache"})


async def _together(
    service: Service, each: Sequence[tuple[Prompt, Sampling]]
) -> AsyncIterator[tuple[int, str | Reply]]:
    """(which, piece or reply) of several answers, as they come."""
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


async def _chat_events(
    service: Service, each: Sequence[tuple[Prompt, Sampling]], model: str, tells_usage: bool
) -> AsyncIterator[str]:
    head = replies.Head("chat.completion.chunk", model)
    followers = [Follower(service.template, prompt.tools) for prompt, _ in each]
    done: list[Reply] = []
    begun = False
    async with aclosing(_together(service, each)) as news:
        async for number, item in news:
            if not begun:
                begun = True
                for index in range(len(each)):
                    yield replies.event(head.of([_delta(index, {"role": "assistant", "content": ""})]))
            follower = followers[number]
            if isinstance(item, str):
                for delta in replies.chat_deltas(number, list(follower.push(item))):
                    yield replies.event(head.of([delta]))
                continue
            done.append(item)
            for delta in (
                *replies.chat_deltas(number, list(follower.finish())),
                *replies.call_deltas(number, follower.message.tool_calls),
                _last(number, follower.message, item, service.tokenizer),
            ):
                yield replies.event(head.of([delta]))
    if tells_usage:
        yield replies.event(head.of([], usage=replies.usage(done)))
    yield replies.event("[DONE]")


def _delta(index: int, delta: dict[str, Any], finish: str | None = None, logprobs: Any = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}


def _last(index: int, message: Message, reply: Reply, tokenizer: Any) -> dict[str, Any]:
    return _delta(index, {}, replies.finish_of(message, reply), replies.chat_logprobs(reply, tokenizer))


async def _text_events(
    service: Service, each: Sequence[tuple[Prompt, Sampling]], model: str, tells_usage: bool
) -> AsyncIterator[str]:
    head = replies.Head("text_completion", model)
    done: list[Reply] = []
    async with aclosing(_together(service, each)) as news:
        async for number, item in news:
            choice: dict[str, Any] = {"index": number, "text": "", "logprobs": None, "finish_reason": None}
            if isinstance(item, str):
                choice["text"] = item
            else:
                done.append(item)
                choice |= {"finish_reason": item.finish, "logprobs": replies.text_logprobs(item, service.tokenizer)}
            yield replies.event(head.of([choice]))
    if tells_usage:
        yield replies.event(head.of([], usage=replies.usage(done)))
    yield replies.event("[DONE]")


def _add_facts(app: FastAPI, service: Service) -> None:
    def described(name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": service.created, "owned_by": "ftk"}

    @app.get("/v1/models")
    async def models() -> Response:
        return JSONResponse({"object": "list", "data": [described(name) for name in service.models]})

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> Response:
        service.adapter(name)
        return JSONResponse(described(name))

    @app.get("/health")
    async def health() -> Response:
        closing = service.desk.closing
        return JSONResponse({"status": "closing" if closing else "ok"}, status_code=503 if closing else 200)

    @app.get("/metrics")
    async def metrics() -> Response:
        service.counts.running.set(service.desk.running)
        service.counts.waiting.set(service.desk.waiting)
        return PlainTextResponse(service.counts.text(), media_type="text/plain; version=0.0.4")


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(Refusal)
    async def refuse(_: Request, refusal: Refusal) -> Response:
        return JSONResponse(refusal.body(), refusal.status, refusal.headers())

    @app.exception_handler(DataError)
    async def refuse_data(request: Request, error: DataError) -> Response:
        long = "but the model reads" in str(error)
        return await refuse(request, Refusal(400, str(error), "messages", "context_length_exceeded" if long else None))

    @app.exception_handler(RequestValidationError)
    async def refuse_fields(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        field = ".".join(str(one) for one in first["loc"] if one != "body")
        return await refuse(request, Refusal(400, f"{field or 'body'}: {first['msg']}", field or None))

    @app.exception_handler(HTTPException)
    async def refuse_route(request: Request, error: HTTPException) -> Response:
        return await refuse(request, Refusal(error.status_code, str(error.detail)))

    @app.exception_handler(FtkError)
    async def refuse_settings(request: Request, error: FtkError) -> Response:
        return await refuse(request, Refusal(501, str(error)))

    @app.exception_handler(Exception)
    async def fail(request: Request, error: Exception) -> Response:
        return await refuse(request, Refusal(500, "the server failed at this request; its log says why"))
