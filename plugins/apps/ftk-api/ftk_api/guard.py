"""What stands before the routes: the key, the size and the pace of a request's body, and errors in one shape.

Plain ASGI, because a response that streams has to pass through untouched, and the body is counted as it arrives.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from ftk_api.counting import Counts
from ftk_api.refusals import Refusal

log = logging.getLogger("ftk.api")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
OPEN = ("/health",)
"""Paths that need no key."""


class Guard:
    """Wraps an application. ``key``: what requests must bring. ``most``: bytes of a body. ``seconds``: for a body."""

    def __init__(self, app: Any, key: str | None, most: int, seconds: float, counts: Counts) -> None:
        self.app, self.key, self.most, self.seconds, self.counts = app, key, most, seconds, counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = 500

        async def told(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            self._check_key(scope)
            body = await self._body(scope, receive)
            await self.app(scope, _again(body, receive), told)
        except Refusal as refusal:
            status = refusal.status
            await _refuse(refusal, send)
        finally:
            route = scope.get("route")
            self.counts.requests.labels(getattr(route, "path", "other"), str(status)).inc()
            log.info("%s %s %d", scope["method"], scope["path"].encode("unicode_escape").decode(), status)

    def _check_key(self, scope: Scope) -> None:
        if self.key is None or scope["path"] in OPEN or scope["method"] == "OPTIONS":
            return
        said = dict(scope["headers"]).get(b"authorization", b"")
        kind, _, key = said.partition(b" ")
        if kind.lower() != b"bearer" or not hmac.compare_digest(key.strip(), self.key.encode()):
            raise Refusal(401, "the key is missing or wrong; send Authorization: Bearer KEY", None, "invalid_api_key")

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """All of the body. Raises Refusal for one that is too large or too slow."""
        said = dict(scope["headers"]).get(b"content-length", b"0")
        if said.isdigit() and int(said) > self.most:
            raise self._too_large()
        body = bytearray()
        try:
            async with asyncio.timeout(self.seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Refusal(400, "the connection was closed before the request was whole")
                    body += message.get("body", b"")
                    if len(body) > self.most:
                        raise self._too_large()
                    if not message.get("more_body"):
                        return bytes(body)
        except TimeoutError as cause:
            raise Refusal(408, f"the body took longer than {self.seconds:g} seconds") from cause

    def _too_large(self) -> Refusal:
        return Refusal(413, f"the body has more than {self.most:,} bytes")


def _again(body: bytes, receive: Receive) -> Receive:
    """A body that has been read, to be read once more; after it whatever the client does."""
    given = False

    async def read() -> MutableMapping[str, Any]:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return read


async def _refuse(refusal: Refusal, send: Send) -> None:
    body = json.dumps(refusal.body()).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
    pairs = [(key.encode(), value.encode()) for key, value in (headers | refusal.headers()).items()]
    await send({"type": "http.response.start", "status": refusal.status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
