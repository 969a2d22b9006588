"""Errors in the shape that clients of the OpenAI API expect, with the status that says whose fault it is."""

from __future__ import annotations

from typing import Any

TYPES = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
    405: "invalid_request_error", 408: "timeout_error", 413: "invalid_request_error", 415: "invalid_request_error",
    422: "invalid_request_error", 429: "rate_limit_error", 500: "server_error", 501: "invalid_request_error",
    503: "server_error",
}  # fmt: skip
AGAIN = {429: "1", 503: "5"}
"""Seconds after which it may be worth trying again."""


class Refusal(Exception):
    """A request that is not answered. param: the field that is wrong. code: a word for programs."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code

    def body(self) -> dict[str, Any]:
        """The JSON of the error."""
        kind = TYPES.get(self.status, "invalid_request_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}

    def headers(self) -> dict[str, str]:
        again = {"retry-after": AGAIN[self.status]} if self.status in AGAIN else {}
        return again | ({"www-authenticate": "Bearer"} if self.status == 401 else {})
