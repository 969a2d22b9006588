"""Which media of a request are read: data URIs always, files of an allowed folder, addresses when that is allowed.

A server that opens whatever path or address a stranger names gives away its files and its network (CWE-22, CWE-918).
So a path has to lie in the folder after all links are followed, and an address is looked up once, refused unless every
number it stands for is public, and connected to by that number; so is each one that it redirects to.
"""

from __future__ import annotations

import base64
import binascii
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

from ftk import Media

from ftk_api.refusals import Refusal

MOST_BYTES = 20_000_000
MOST_SECONDS = 10.0
MOST_REDIRECTS = 3
Look = Callable[[str, int], list[str]]
"""``look(host, port) -> addresses``."""


def addresses_of(host: str, port: int) -> list[str]:
    """The numbers that a name stands for. Raises OSError."""
    return [str(one[4][0]) for one in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


class MediaDoor:
    """Lets media in. ``folder``: files that may be named lie in it. ``remote``: public addresses may be."""

    def __init__(self, folder: str | None = None, remote: bool = False, look: Look = addresses_of) -> None:
        self.folder = Path(folder).expanduser().resolve() if folder else None
        self.remote, self.look = remote, look

    def __call__(self, medium: Media) -> Media:
        """The medium with a source that may be read: bytes. Raises Refusal."""
        if isinstance(medium.source, tuple):
            return replace(medium, source=tuple(self._read(one) for one in medium.source))
        return replace(medium, source=self._read(medium.source))

    def _read(self, source: str | bytes) -> bytes:
        if isinstance(source, bytes):
            return source
        if source.startswith("data:"):
            return _decoded(source)
        if source.startswith(("http://", "https://")):
            if not self.remote:
                raise Refusal(403, "media: addresses are not fetched by this server; send a data URI", "messages")
            return self._fetched(source)
        return self._file(source)

    def _file(self, source: str) -> bytes:
        if self.folder is None:
            raise Refusal(403, "media: files of this server cannot be named; send a data URI", "messages")
        try:
            path = (self.folder / unquote(source.removeprefix("file://"))).resolve()
            if not path.is_relative_to(self.folder) or not path.is_file():
                raise PermissionError(path)
            with path.open("rb") as file:
                content = file.read(MOST_BYTES + 1)
        except (OSError, ValueError) as cause:  # one answer for all, so that nobody learns what lies elsewhere
            raise Refusal(403, "media: there is no such file in the folder that may be named", "messages") from cause
        if len(content) > MOST_BYTES:
            raise Refusal(413, f"media: a file of more than {MOST_BYTES:,} bytes", "messages")
        return content

    def _fetched(self, address: str) -> bytes:
        until = time.monotonic() + MOST_SECONDS
        for _ in range(MOST_REDIRECTS + 1):
            status, content = self._get(address, until)
            if isinstance(content, bytes):
                if status != 200:
                    raise Refusal(400, f"media: the address answered with status {status}", "messages")
                return content
            address = content
        raise Refusal(400, "media: the address redirects too often", "messages")

    def _get(self, address: str, until: float) -> tuple[int, bytes | str]:
        """The status and the content, or where it redirects to."""
        try:
            parts = urlsplit(address)
            port = parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError as cause:
            raise Refusal(400, "media: an address that cannot be read", "messages") from cause
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Refusal(400, "media: only http and https addresses are fetched", "messages")
        secure = parts.scheme == "https"
        try:
            number = self._public(parts.hostname, port)
            left = max(0.1, until - time.monotonic())
            connection = _Pinned(parts.hostname, port, number, secure, left)
            late = threading.Timer(left, connection.abort)  # a timeout of the socket begins anew with each byte
            late.start()
            try:
                target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
                connection.request("GET", target, headers={"Accept": "*/*", "User-Agent": "ftk-api"})
                answer = connection.getresponse()
                if answer.status in (301, 302, 303, 307, 308):
                    return answer.status, urljoin(address, answer.getheader("location") or "")
                return answer.status, _limited(answer, until)
            finally:
                late.cancel()
                connection.close()
        except (OSError, http.client.HTTPException, ValueError) as cause:
            raise Refusal(400, "media: the address cannot be fetched", "messages") from cause

    def _public(self, host: str, port: int) -> str:
        """The number to connect to. Raises Refusal unless all that the name stands for are public."""
        found = self.look(host, port)
        for one in found:
            if not _is_public(one):
                raise Refusal(403, "media: the address is not a public one", "messages")
        if not found:
            raise Refusal(400, "media: the address cannot be fetched", "messages")
        return found[0]


NAT64 = ipaddress.ip_network("64:ff9b::/96")


def _is_public(address: str) -> bool:
    """Whether a number leads out into the internet, as itself and as the number that it may be translated to."""
    number = ipaddress.ip_address(address.partition("%")[0])
    inner: list[ipaddress.IPv4Address | None] = []
    if isinstance(number, ipaddress.IPv6Address):
        inner = [number.ipv4_mapped, number.sixtofour, *(number.teredo or ())]
        if number in NAT64:
            inner.append(ipaddress.IPv4Address(int(number) & 0xFFFFFFFF))
    if inside := [one for one in inner if one is not None]:
        return all(_is_public(str(one)) for one in inside)
    return number.is_global and not (number.is_multicast or number.is_reserved)


class _Pinned(http.client.HTTPConnection):
    """A connection to a number that was looked at, under the name that it was looked up for."""

    def __init__(self, host: str, port: int, number: str, secure: bool, seconds: float) -> None:
        super().__init__(host, port, timeout=seconds)
        self.number, self.secure = number, secure

    def abort(self) -> None:
        """From another thread: whatever waits for this connection fails."""
        if self.sock is not None:
            with suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)

    def connect(self) -> None:
        self.sock = socket.create_connection((self.number, self.port), self.timeout)
        if self.secure:
            self.sock = ssl.create_default_context().wrap_socket(self.sock, server_hostname=self.host)


def _limited(answer: http.client.HTTPResponse, until: float) -> bytes:
    content = bytearray()
    while piece := answer.read1(65536):
        content += piece
        if len(content) > MOST_BYTES:
            raise Refusal(413, f"media: more than {MOST_BYTES:,} bytes", "messages")
        if time.monotonic() > until:
            break
    if time.monotonic() > until:  # what was cut off looks as if it had ended
        raise Refusal(408, f"media: the address took longer than {MOST_SECONDS:g} seconds", "messages")
    return bytes(content)


def _decoded(source: str) -> bytes:
    head, comma, data = source.partition(",")
    try:
        if not comma:
            raise ValueError
        content = base64.b64decode(unquote(data), validate=True) if head.endswith(";base64") else unquote(data).encode()
    except (ValueError, binascii.Error) as cause:
        raise Refusal(400, "media: a data URI that cannot be read", "messages") from cause
    if len(content) > MOST_BYTES:
        raise Refusal(413, f"media: more than {MOST_BYTES:,} bytes", "messages")
    return content
