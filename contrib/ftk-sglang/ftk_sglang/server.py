"""An SGLang server: its HTTP interface, and one of our own that runs as long as the engine does."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Mapping
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ftk import ConfigError, DataError, ModelError
from ftk.errors import FtkError

LAST_WORDS = 300


class Client:
    """``/generate`` of one server, for any number of threads: each request has a connection of its own.

    url: ``http://host:port``, ``https`` as well. where: how errors begin. Raises ConfigError for another address.
    """

    def __init__(self, url: str, where: str) -> None:
        self.url, self.where = url.rstrip("/"), where
        parts = urlsplit(self.url)
        try:
            self._place = (parts.hostname or "", parts.port)
        except ValueError:
            self._place = ("", None)
        if parts.scheme not in ("http", "https") or not self._place[0]:
            raise ConfigError(f"{where}: {url}: is no address of a server. Write http://127.0.0.1:30000")
        self._connection = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._path = parts.path

    def ready(self) -> bool:
        """Whether it has loaded its model."""
        try:
            with self._asked("GET", "/health", timeout=5) as answer:
                return answer.status == 200
        except FtkError:
            return False

    def info(self) -> Mapping[str, Any]:
        """``/get_server_info``: its arguments; empty where it does not tell."""
        try:
            with self._asked("GET", "/get_server_info", timeout=30) as answer:
                found = json.loads(answer.read()) if answer.status == 200 else {}
        except (FtkError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def generate(self, body: Mapping[str, Any]) -> Any:
        """The answer to a request. Raises DataError for what it refuses, ModelError when it is not there."""
        with self._asked("POST", "/generate", body) as answer:
            text = answer.read().decode(errors="replace")
            self._check(answer.status, text)
        return self._parsed(text)

    def stream(self, body: Mapping[str, Any]) -> Generator[dict[str, Any], None, None]:
        """The events of a request with ``stream: true``. Closing ends the connection, and with it the server's work.

        Raises ModelError for a stream that breaks off before ``[DONE]``.
        """
        with self._asked("POST", "/generate", {**body, "stream": True}) as answer:
            if answer.status != 200:
                self._check(answer.status, answer.read().decode(errors="replace"))
            for line in answer:
                if not line.startswith(b"data:"):
                    continue
                content = line.removeprefix(b"data:").strip().decode(errors="replace")
                if content == "[DONE]":
                    return
                event = self._parsed(content)
                if "error" in event:
                    raise DataError(f"sglang: {_line(event['error'])}")
                yield event
        raise ModelError(f"{self.where}: the server at {self.url} broke off in the middle of an answer")

    @contextlib.contextmanager
    def _asked(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, timeout: float | None = None
    ) -> Iterator[HTTPResponse]:
        """A request; an answer may take its time, unless ``timeout`` (seconds) says otherwise."""
        connection = self._connection(*self._place, timeout=timeout or 10)
        try:
            connection.connect()
            connection.sock.settimeout(timeout)
            content = None if body is None else json.dumps(body)
            connection.request(method, self._path + path, content, {"Content-Type": "application/json"})
            yield connection.getresponse()
        except (OSError, HTTPException) as cause:
            said = _line(cause) or type(cause).__name__
            raise ModelError(f"{self.where}: the server at {self.url} does not answer: {said}") from cause
        finally:
            connection.close()

    def _check(self, status: int, text: str) -> None:
        if status == 200:
            return
        try:
            said = json.loads(text)
            said = said.get("error", said) if isinstance(said, dict) else said
        except ValueError:
            said = text
        if status < 500:
            raise DataError(f"sglang: {_line(said)}")
        raise ModelError(f"{self.where}: the server at {self.url} answers {status}: {_line(said)}")

    def _parsed(self, text: str) -> Any:
        try:
            return json.loads(text)
        except ValueError as cause:
            raise ModelError(f"{self.where}: what {self.url} says is no JSON, so it is no SGLang server") from cause


class Server:
    """``python -m sglang.launch_server`` on the loopback interface, in a group of processes of its own.

    arguments: its flags, as their names with underscores. patience: seconds until it must be ready.
    Raises ModelError with its last words when it ends before.
    """

    def __init__(
        self, arguments: Mapping[str, Any], where: str, patience: float = 1800, command: tuple[str, ...] = ()
    ) -> None:
        self.port = _free_port()
        self._log = tempfile.NamedTemporaryFile(prefix="ftk-sglang-", suffix=".log", delete=False)  # noqa: SIM115
        flags = {**arguments, "host": "127.0.0.1", "port": self.port}
        words = [*(command or (sys.executable, "-m", "sglang.launch_server")), *flags_of(flags)]
        quiet = {"DO_NOT_TRACK": "1", "SGLANG_DISABLE_TELEMETRY": "1"}
        if Path(str(arguments.get("model_path", ""))).is_dir():
            quiet["HF_HUB_OFFLINE"] = "1"
        try:
            self._process = subprocess.Popen(
                words, stdout=self._log, stderr=subprocess.STDOUT, env={**os.environ, **quiet}, start_new_session=True
            )
        except OSError as cause:
            self._forget()
            raise ModelError(f"{where}: {words[0]}: cannot be started: {cause.strerror}") from cause
        self.client = Client(f"http://127.0.0.1:{self.port}", where)
        try:
            self._wait(where, patience)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End it and its processes. Calling it twice is harmless."""
        for sort, seconds in ((signal.SIGTERM, 20), (signal.SIGKILL, 5)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, sort)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)
                break
        with contextlib.suppress(ProcessLookupError):  # what it has left behind
            os.killpg(self._process.pid, signal.SIGKILL)
        self._forget()

    def _wait(self, where: str, patience: float) -> None:
        until = time.monotonic() + patience
        while not self.client.ready():
            if (code := self._process.poll()) is not None:
                raise ModelError(f"{where}: the server ended with {code}: {self._last_words()}")
            if time.monotonic() > until:
                raise ModelError(f"{where}: the server is not ready after {patience:.0f} seconds: {self._last_words()}")
            time.sleep(0.2)

    def _last_words(self) -> str:
        text = Path(self._log.name).read_text(encoding="utf-8", errors="replace").strip()
        return _line(text.splitlines()[-1] if text else "it said nothing")

    def _forget(self) -> None:
        self._log.close()
        Path(self._log.name).unlink(missing_ok=True)


def flags_of(arguments: Mapping[str, Any]) -> list[str]:
    """Command line flags: a list gives several words, True the flag alone, None and False nothing."""
    words: list[str] = []
    for name, value in arguments.items():
        if value is None or value is False:
            continue
        words.append(f"--{name.replace('_', '-')}")
        if isinstance(value, (list, tuple)):
            words += map(str, value)
        elif value is not True:
            words.append(json.dumps(value) if isinstance(value, Mapping) else str(value))
    return words


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _line(said: Any) -> str:
    if isinstance(said, Mapping):
        said = said.get("message", said)
    return " ".join(str(said).split())[:LAST_WORDS]
