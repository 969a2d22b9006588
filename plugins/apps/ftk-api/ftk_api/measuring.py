"""``/v1/score`` and ``/v1/embeddings``: numbers instead of words."""

from __future__ import annotations

import asyncio
import base64
from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from ftk import Prompt

from ftk_api.prompts import messages_of
from ftk_api.reading import StrictRoute
from ftk_api.refusals import Refusal
from ftk_api.requests import EmbeddingRequest, EvaluationRequest, ScoreRequest

if TYPE_CHECKING:
    from ftk_api.service import Service


def measure_routes(service: Service) -> APIRouter:
    router = APIRouter(route_class=StrictRoute)

    @router.post("/v1/score")
    async def score(asked: ScoreRequest) -> Response:
        _own(service, asked.model)
        prompts = [Prompt(await asyncio.to_thread(messages_of, one, service.fetch)) for one in asked.messages]
        scores = await service.desk.call(service.desk.engine.score, prompts)
        data = [{"object": "score", "index": index, "score": score} for index, score in enumerate(scores)]
        return JSONResponse({"object": "list", "model": asked.model or service.name, "data": data})

    @router.post("/v1/score/evaluation")
    async def evaluate(asked: EvaluationRequest) -> Response:
        _own(service, asked.model)
        reward = getattr(service.desk.engine, "reward", None)
        if reward is None:
            raise Refusal(501, f"{service.name} gives no rewards", "model")
        scores = await service.desk.call(reward, [Prompt((), text=one) for one in asked.messages])
        head = {"id": f"scoreval-{uuid4().hex}", "object": "score.evaluation", "model": asked.model or service.name}
        return JSONResponse({**head, "scores": scores})

    @router.post("/v1/embeddings")
    async def embed(asked: EmbeddingRequest) -> Response:
        _own(service, asked.model)
        make = getattr(service.desk.engine, "embed", None)
        if make is None:
            raise Refusal(501, f"{service.name} makes no embeddings", "model")
        texts = [asked.input] if isinstance(asked.input, str) else asked.input
        vectors = await service.desk.call(make, texts)
        data = [
            {"object": "embedding", "index": index, "embedding": _written(one, asked.encoding_format)}
            for index, one in enumerate(vectors)
        ]
        tokens = sum(len(service.tokenizer(text)["input_ids"]) for text in texts)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return JSONResponse({"object": "list", "model": asked.model or service.name, "data": data, "usage": usage})

    return router


def _own(service: Service, model: str) -> None:
    if service.adapter(model) is not None:
        raise Refusal(501, f"{model} answers, but the scores are those of {service.name} alone", "model")


def _written(vector: Sequence[float], form: str) -> Any:
    return list(vector) if form == "float" else base64.b64encode(array("f", vector).tobytes()).decode()
