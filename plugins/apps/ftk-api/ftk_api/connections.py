"""What a connection may do before it has sent a request: little, and not for long.

uvicorn waits for the head of a request forever and answers a broken one in plain text.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from ftk_api.refusals import Refusal


def limited(seconds: float) -> type[H11Protocol]:
    """The protocol of a server that gives each head ``seconds`` to arrive, on a new connection and between requests."""

    class Limited(H11Protocol):
        _late: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.app_state = {**self.app_state, "abort": transport.abort}  # for what reads too slowly, see the guard
            self._expect_head()

        def data_received(self, data: bytes) -> None:
            waits = self.timeout_keep_alive_task is not None  # between two requests; the call below forgets it
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._forget()
            elif waits:
                self._expect_head()

        def on_response_complete(self) -> None:
            self._forget()
            super().on_response_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            self._forget()
            super().connection_lost(exc)

        def send_400_response(self, msg: str) -> None:
            """A head that is no HTTP, or too long, in the shape of all errors."""
            if self.transport.is_closing():
                return
            body = json.dumps(Refusal(400, f"{msg.rstrip('.')}: its head is broken or too long").body()).encode()
            head = f"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
            self.transport.write(head.encode() + b"connection: close\r\n\r\n" + body)
            self.transport.close()

        def _expect_head(self) -> None:
            self._forget()
            self._late = self.loop.call_later(seconds, self.transport.abort)

        def _forget(self) -> None:
            if self._late is not None:
                self._late.cancel()
                self._late = None

    return Limited
