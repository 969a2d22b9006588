"""The body of a request as JSON, read strictly: what two readers could take for different things is refused.

RFC 8259 leaves repeated keys, numbers beyond a double and half surrogate pairs to the reader, and Python adds NaN. Deep
nesting is refused, too: what comes after may walk it with the stack.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from ftk_api.refusals import Refusal

MOST_DEEP = 64
"""Lists and objects inside each other."""


def read_json(body: bytes) -> Any:
    """The value of a JSON text in UTF-8. Raises Refusal."""
    try:
        value = json.loads(body.decode("utf-8"), object_pairs_hook=_object, parse_constant=_constant)
    except UnicodeDecodeError as error:
        raise Refusal(400, f"the body is not UTF-8: byte {error.start} cannot be read") from error
    except json.JSONDecodeError as error:
        raise Refusal(400, f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from error
    except RecursionError as error:
        raise _too_deep() from error
    except ValueError as error:  # a whole number of thousands of digits
        raise Refusal(400, "the body holds a number that is too long") from error
    _check(value)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise Refusal(400, f"the body names {twice[:60]!a} twice in one object")
    return made


def _constant(word: str) -> Any:
    raise Refusal(400, f"the body is not JSON: it holds {word}")


def _check(value: Any) -> None:
    """Raises Refusal for deep nesting, numbers beyond a double and text that is none."""
    level = [value]
    for _ in range(MOST_DEEP):
        below: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                below += one.keys()
                below += one.values()
            elif isinstance(one, list):
                below += one
            elif isinstance(one, str):
                if not one.isascii():
                    _check_text(one)
            elif isinstance(one, float) and not math.isfinite(one):
                raise Refusal(400, "the body holds a number that is too large")
        if not below:
            return
        level = below
    if any(isinstance(one, (dict, list)) for one in level):
        raise _too_deep()
    _check(level)


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Refusal(400, "the body holds half of a surrogate pair, which is no character") from error


def _too_deep() -> Refusal:
    return Refusal(400, f"the body is nested more than {MOST_DEEP} deep")


class StrictRequest(Request):
    """A request whose JSON has been read by :func:`read_json`."""

    value: Any = None

    async def json(self) -> Any:
        return self.value


class StrictRoute(APIRoute):
    """A route that takes JSON, and that only under its name: what a form of a foreign web page can send is refused."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            if request.method == "POST":
                said = request.headers.get("content-type", "").partition(";")[0].strip().lower()
                if said != "application/json":
                    raise Refusal(415, "the body has to be JSON; send Content-Type: application/json")
                request = StrictRequest(request.scope, request.receive)
                request.value = read_json(await request.body())
            return await handler(request)

        return handle
