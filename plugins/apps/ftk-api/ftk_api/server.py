"""The application: its routes, the facts about it, and errors in one shape."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from ftk import DataError, FtkError
from starlette.exceptions import HTTPException

from ftk_api.chatting import chat_routes
from ftk_api.completing import completion_routes
from ftk_api.measuring import measure_routes
from ftk_api.refusals import Refusal
from ftk_api.service import Service


def make_app(service: Service) -> FastAPI:
    """The application. Its routes are described at ``/openapi.json``."""

    app = FastAPI(title="ftk api", docs_url=None, redoc_url=None)
    _add_errors(app)
    _add_facts(app, service)
    for routes in (chat_routes, completion_routes, measure_routes):
        app.include_router(routes(service))
    return app


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
        code = "context_length_exceeded" if long else None
        return await refuse(request, Refusal(400, str(error), "messages" if long else None, code))

    @app.exception_handler(RequestValidationError)
    async def refuse_fields(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        field = next((str(one) for one in first["loc"][1:] if not isinstance(one, int)), None)
        what = str(first["msg"]).removeprefix("Value error, ")
        return await refuse(request, Refusal(400, f"{field or 'body'}: {what}", field))

    @app.exception_handler(HTTPException)
    async def refuse_route(request: Request, error: HTTPException) -> Response:
        return await refuse(request, Refusal(error.status_code, str(error.detail)))

    @app.exception_handler(FtkError)
    async def refuse_settings(request: Request, error: FtkError) -> Response:
        return await refuse(request, Refusal(501, str(error)))

    @app.exception_handler(Exception)
    async def fail(request: Request, error: Exception) -> Response:  # the guard writes it to the log
        return await refuse(request, Refusal(500, "the server failed at this request; its log says why"))
