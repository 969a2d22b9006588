"""What stands before the routes: the key, the size and the pace of a request's body, and errors in one shape.

Plain ASGI, because a response that streams has to pass through untouched, and the body is counted as it arrives.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
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
MOST_HEAD = 65536
OPEN = ("/health",)
"""Paths that need no key."""


class Guard:
    """Wraps an application.

    key: what requests must bring. most: bytes of a body. seconds: for a body, and for a client to take what is sent.
    open: requests at a time, with those whose bodies are still coming. host: what the server is called, beside numbers
    and localhost. Without a key requests under other names are refused: a web page whose name was made to point here
    would be let in by the browser (DNS rebinding).
    """

    def __init__(
        self, app: Any, key: str | None, most: int, seconds: float, counts: Counts, open: int = 1024, host: str = ""
    ) -> None:
        self.app, self.key, self.most, self.seconds, self.counts = app, key, most, seconds, counts
        self.open, self.host = open, host
        self._now = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = 0

        async def told(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            try:
                async with asyncio.timeout(self.seconds):
                    await send(message)
            except TimeoutError:
                scope.get("state", {}).get("abort", lambda: None)()
                raise

        self._now += 1
        try:
            _check_head(scope)
            self._check_key(scope)
            self._check_host(scope)
            if self._now > self.open:
                raise Refusal(503, f"{self.open} requests are open. Try again later")
            body = await self._body(scope, receive)
            await self.app(scope, _again(body, receive), told)
        except Refusal as refusal:
            status = refusal.status
            await _refuse(refusal, send)
        except TimeoutError:
            log.warning("%s: the client did not take the answer in %g seconds", _path(scope), self.seconds)
        except Exception:
            log.exception("%s failed", _path(scope))
            if not status:
                status = 500
                await _refuse(Refusal(500, "the server failed at this request; its log says why"), send)
        finally:
            self._now -= 1
            route = scope.get("route")
            self.counts.requests.labels(getattr(route, "path", "other"), str(status)).inc()
            log.info("%s %s %d", scope["method"], _path(scope), status)

    def _check_host(self, scope: Scope) -> None:
        if self.key is not None or scope["path"] in OPEN:
            return
        said = dict(scope["headers"]).get(b"host", b"localhost").decode("latin-1").lower()
        name = said[1:].partition("]")[0] if said.startswith("[") else said.partition(":")[0]
        if name in ("localhost", self.host) or name.endswith(".localhost"):
            return
        try:
            ipaddress.ip_address(name)
        except ValueError:
            raise Refusal(403, "this server has no key, so it answers under localhost or a number alone") from None

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


def _check_head(scope: Scope) -> None:
    """Refuse a head that is too long; one that comes in a single piece gets past uvicorn's own limit."""
    size = sum(len(name) + len(value) for name, value in scope["headers"])
    if size + len(scope.get("raw_path") or b"") + len(scope.get("query_string") or b"") > MOST_HEAD:
        raise Refusal(431, f"the head of the request has more than {MOST_HEAD:,} bytes")


def _path(scope: Scope) -> str:
    """For the log: no line breaks, and not the whole of a long one."""
    return str(scope["path"])[:200].encode("unicode_escape").decode()


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
