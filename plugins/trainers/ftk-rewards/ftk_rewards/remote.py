"""A reward model behind an address: it gets the texts, it returns scores. LLaMA-Factory's format.

Nothing is sent anywhere unless ``reward_model_type: api`` says so, and then to the address in ``reward_model`` only.
"""

from __future__ import annotations

import ipaddress
import json
import math
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from ftk import ConfigError

from ftk_rewards.functions import RewardError

TIMEOUT = 120.0
TRIES = 3


class Server:
    """``POST {"model": "model", "messages": [text, ...]}`` → ``{"scores": [number, ...]}``.

    A server that does not answer is asked again twice. Raises ConfigError for what is no address of the web.
    """

    def __init__(self, address: str, where: str, *, pause: float = 1.0) -> None:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{where}: reward_model_type api wants an address such as http://127.0.0.1:8000/score")
        self.address, self.pause = address, pause
        proxies = {} if _is_here(parts.hostname) else None  # a server on this machine is not behind a proxy
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies), _NoRedirect())

    def scores(self, texts: Sequence[str]) -> list[float]:
        """A number for each text. Raises RewardError."""
        body = json.dumps({"model": "model", "messages": list(texts)}).encode()
        request = urllib.request.Request(self.address, body, {"Content-Type": "application/json"}, method="POST")
        answer = self._answer(request)
        scores = answer.get("scores") if isinstance(answer, dict) else None
        if not isinstance(scores, list) or len(scores) != len(texts):
            raise RewardError(f'{self.address}: expected {{"scores": [...]}} with {len(texts)} numbers')
        if not all(isinstance(one, (int, float)) and math.isfinite(one) for one in scores):
            raise RewardError(f"{self.address}: its scores are not all numbers")
        return [float(score) for score in scores]

    def _answer(self, request: urllib.request.Request) -> Any:
        for attempt in range(TRIES):
            try:
                with self.opener.open(request, timeout=TIMEOUT) as response:
                    return json.loads(response.read())
            except urllib.error.HTTPError as cause:
                if cause.code < 500 or attempt == TRIES - 1:
                    raise RewardError(f"{self.address}: answered {cause.code} {cause.reason}") from cause
            except (urllib.error.URLError, TimeoutError, ConnectionError) as cause:
                if attempt == TRIES - 1:
                    raise RewardError(f"{self.address}: does not answer: {getattr(cause, 'reason', cause)}") from cause
            except ValueError as cause:
                raise RewardError(f"{self.address}: its answer is no JSON") from cause
            time.sleep(self.pause * 2**attempt)
        raise AssertionError("the last try raises")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The texts go to the address that the user wrote, not to where it points."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
