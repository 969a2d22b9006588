"""Media that a request names: no file outside the folder, no address that is not public (CWE-22, CWE-918).

LLaMA-Factory's API fetched private addresses and read local files for whoever asked (published as server-side request
forgery and local file reading in its chat API). Addresses are those of RFC 6890; the servers of these tests are on
loopback and reached as a public number by a look-up that a test makes up.
"""

import base64
import http.server
import os
import socket
import threading
import time
from contextlib import contextmanager

import ftk_api.media as media_module
import pytest
from ftk import Media
from ftk_api.media import MediaDoor, _is_public
from ftk_api.refusals import Refusal


def read(door, source):
    return door(Media("image", source)).source


def refusal(door, source):
    with pytest.raises(Refusal) as caught:
        read(door, source)
    return caught.value.status


# Data URIs


def test_a_data_uri_is_read_whatever_is_allowed():
    assert read(MediaDoor(), f"data:image/png;base64,{base64.b64encode(b'abc').decode()}") == b"abc"
    assert read(MediaDoor(), "data:text/plain,a%20b") == b"a b"
    assert read(MediaDoor(), b"abc") == b"abc"
    assert read(MediaDoor(), ("data:,a", "data:,b")) == (b"a", b"b")
    for broken in ("data:", "data:image/png;base64", "data:image/png;base64,%%%", "data:image/png;base64,abc"):
        assert refusal(MediaDoor(), broken) == 400


def test_a_data_uri_has_a_size(monkeypatch):
    monkeypatch.setattr(media_module, "MOST_BYTES", 10)
    assert refusal(MediaDoor(), "data:,12345678901") == 413


# Files


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "secret.png").write_bytes(b"secret")
    allowed = tmp_path / "allowed"
    (allowed / "in").mkdir(parents=True)
    (allowed / "cat.png").write_bytes(b"cat")
    (allowed / "in" / "dog one.png").write_bytes(b"dog")
    (tmp_path / "allowed2").mkdir()
    (tmp_path / "allowed2" / "x.png").write_bytes(b"secret")
    return allowed


def test_files_are_refused_unless_a_folder_is_allowed(folder):
    for source in (str(folder / "cat.png"), f"file://{folder}/cat.png", "cat.png", "/etc/passwd", "file:///etc/passwd"):
        assert refusal(MediaDoor(), source) == 403
        assert refusal(MediaDoor(remote=True), source) == 403


def test_files_of_the_folder_are_read(folder):
    door = MediaDoor(str(folder))
    for source in ("cat.png", "./in/../cat.png", str(folder / "cat.png"), f"file://{folder}/cat.png"):
        assert read(door, source) == b"cat"
    assert read(door, "in/dog%20one.png") == b"dog"


def test_nothing_leads_out_of_the_folder(folder):
    (folder / "link.png").symlink_to(folder.parent / "secret.png")
    (folder / "up").symlink_to(folder.parent)
    os.mkfifo(folder / "pipe")
    door = MediaDoor(str(folder))
    messages = set()
    for source in (
        "../secret.png", "in/../../secret.png", "%2e%2e/secret.png", "..%2fsecret.png", "%2e%2e%2fsecret.png",
        "%252e%252e%252fsecret.png", "..\\secret.png", "/etc/passwd", "//etc/passwd", "file:///etc/passwd",
        "file://localhost/etc/passwd", "file:/etc/passwd", "FILE:///etc/passwd", str(folder.parent / "secret.png"),
        str(folder.parent / "allowed2" / "x.png"), "../allowed2/x.png", "link.png", "up/secret.png", "~/x", "",
        ".", "in", "pipe", "/proc/self/environ", "/dev/zero", "cat.png\0.jpg", "cat.png%00", "x" * 5000, "nowhere.png",
        "ftp://127.0.0.1/x", "gopher://127.0.0.1/x", "jar:file:///x", "HTTP://127.0.0.1/", "dict://127.0.0.1:11211/",
    ):  # fmt: skip
        with pytest.raises(Refusal) as caught:
            read(door, source)
        assert caught.value.status == 403, source
        messages.add(str(caught.value))
    assert len(messages) == 1  # nobody learns what there is elsewhere


def test_a_file_has_a_size(folder, monkeypatch):
    monkeypatch.setattr(media_module, "MOST_BYTES", 2)
    assert refusal(MediaDoor(str(folder)), "cat.png") == 413


# Addresses


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.255.255.254", "0.0.0.0", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1",
        "169.254.169.254", "100.64.0.1", "192.0.0.1", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1",
        "224.0.0.1", "240.0.0.1", "255.255.255.255", "::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
        "::ffff:169.254.169.254", "::127.0.0.1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1",
        "2001:db8::1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:7f00:1::", "2002:a00:1::1",
        "2001:0:7f00:1::1",
    ],
)  # fmt: skip
def test_no_address_but_a_public_one_is_connected_to(address, monkeypatch):
    monkeypatch.setattr(socket, "create_connection", lambda *_: pytest.fail("connected"))
    for found in ([address], ["8.8.8.8", address], [address, "8.8.8.8"]):
        assert refusal(MediaDoor(remote=True, look=lambda *_, found=found: found), "http://cat.example/cat.png") == 403


def test_public_addresses_are_known():
    for address in ("8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"):
        assert _is_public(address)


@pytest.mark.parametrize(
    "source",
    [
        "http://127.0.0.1/", "http://localhost/", "http://[::1]/", "http://[::ffff:127.0.0.1]/", "http://2130706433/",
        "http://0x7f000001/", "http://0177.0.0.1/", "http://127.1/", "http://user@127.0.0.1/", "http://0/",
        "http://169.254.169.254/latest/meta-data/", "https://127.0.0.1/",
    ],
)  # fmt: skip
def test_names_of_this_machine_are_refused_however_they_are_written(source, monkeypatch):
    monkeypatch.setattr(socket, "create_connection", lambda *_: pytest.fail("connected"))
    assert refusal(MediaDoor(remote=True), source) == 403


def test_addresses_are_refused_unless_allowed(folder):
    door = MediaDoor(str(folder), look=lambda *_: pytest.fail("looked up"))
    for source in ("http://8.8.8.8/", "https://8.8.8.8/"):
        assert refusal(door, source) == 403


def test_addresses_that_are_none_are_the_client_s_mistake():
    for source in ("http://", "http:///x", "http://[::1", "http://x:99999/", "http://a b/"):
        assert refusal(MediaDoor(remote=True, look=lambda *_: ["not a number"]), source) == 400


@contextmanager
def web(answer):
    """A web server on loopback; ``answer(handler)``. Gives its port and the paths and hosts that were asked."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, self.headers["host"]))
            answer(self)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port, asked
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def to_loopback(monkeypatch):
    """Connections to the public number 8.8.8.8 go to loopback; all numbers that were connected to."""
    connected, connect = [], socket.create_connection

    def reroute(address, *more):
        connected.append(address[0])
        return connect(("127.0.0.1" if address[0] == "8.8.8.8" else address[0], address[1]), *more)

    monkeypatch.setattr(socket, "create_connection", reroute)
    return connected


def fine(handler, content=b"cat"):
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(content)


def moved(where):
    def answer(handler):
        handler.send_response(302)
        handler.send_header("location", where)
        handler.end_headers()

    return answer


def test_a_public_address_is_read_under_its_name(to_loopback):
    with web(fine) as (port, asked):
        door = MediaDoor(remote=True, look=lambda *_: ["8.8.8.8"])
        assert read(door, f"http://cat.example:{port}/cat.png?x=1#y") == b"cat"
    assert asked == [("/cat.png?x=1", f"cat.example:{port}")]


def test_a_name_that_changes_its_number_is_asked_once_and_that_number_is_used(to_loopback):
    answers = [["8.8.8.8"], ["127.0.0.1"]]  # what a rebinding name server says, first and second
    with web(fine) as (port, _):
        assert read(MediaDoor(remote=True, look=lambda *_: answers.pop(0)), f"http://cat.example:{port}/") == b"cat"
        assert to_loopback == ["8.8.8.8"]
        assert refusal(MediaDoor(remote=True, look=lambda *_: answers.pop(0)), f"http://cat.example:{port}/") == 403
    assert to_loopback == ["8.8.8.8"]


@pytest.mark.parametrize(
    ("where", "status"),
    [
        ("http://127.0.0.1/", 403), ("http://169.254.169.254/latest/meta-data/", 403), ("//10.0.0.1/x", 403),
        ("http://[::1]/", 403), ("file:///etc/passwd", 400), ("data:,secret", 400), ("ftp://8.8.8.8/", 400), ("", 400),
        ("/again", 400),
    ],
)  # fmt: skip
def test_a_redirect_is_looked_at_like_the_first_address(to_loopback, where, status):
    def look(host, port):
        return ["8.8.8.8"] if host == "cat.example" else media_module.addresses_of(host, port)

    with web(moved(where)) as (port, asked):
        assert refusal(MediaDoor(remote=True, look=look), f"http://cat.example:{port}/") == status
        assert len(asked) <= 4
    assert set(to_loopback) == {"8.8.8.8"}


def test_a_redirect_to_a_public_address_is_followed(to_loopback):
    def answer(handler):
        moved("/there")(handler) if handler.path == "/here" else fine(handler)

    with web(answer) as (port, asked):
        assert read(MediaDoor(remote=True, look=lambda *_: ["8.8.8.8"]), f"http://cat.example:{port}/here") == b"cat"
    assert [path for path, _ in asked] == ["/here", "/there"]


def test_a_fetched_medium_has_a_size_and_a_status(to_loopback, monkeypatch):
    monkeypatch.setattr(media_module, "MOST_BYTES", 100_000)

    def endless(handler):
        handler.send_response(200)
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(b"x" * 10_000)
        except OSError:
            pass

    door = MediaDoor(remote=True, look=lambda *_: ["8.8.8.8"])
    with web(endless) as (port, _):
        assert refusal(door, f"http://cat.example:{port}/") == 413
    with web(lambda handler: handler.send_error(500)) as (port, _):
        assert refusal(door, f"http://cat.example:{port}/") == 400


@pytest.mark.parametrize("part", ["nothing", "head", "body"])
def test_an_address_that_drips_is_given_up(to_loopback, monkeypatch, part):
    monkeypatch.setattr(media_module, "MOST_SECONDS", 0.5)

    def slow(handler):
        if part == "body":
            handler.send_response(200)
            handler.end_headers()
        elif part == "head":
            handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        try:
            for _ in range(100):
                time.sleep(0.1)
                if part != "nothing":
                    handler.wfile.write(b"x")
        except OSError:
            pass

    with web(slow) as (port, _):
        began = time.monotonic()
        assert refusal(MediaDoor(remote=True, look=lambda *_: ["8.8.8.8"]), f"http://cat.example:{port}/") in (400, 408)
        assert time.monotonic() - began < 3
