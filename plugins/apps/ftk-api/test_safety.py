"""Who is let in, how much is taken on, who goes away, and how it ends.

Raw sockets stand for clients that are slow, broken or gone; the engine is scripted, so that a test knows what it does.
"""

import hmac
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from click.testing import CliRunner
from ftk import ConfigError
from ftk.cli import main
from ftk_api.command import check_address

HI = [{"role": "user", "content": "Hi"}]
CHAT = "/v1/chat/completions"


def head(server, length, *lines):
    said = (f"POST {CHAT} HTTP/1.1", f"host: 127.0.0.1:{server.port}", "content-type: application/json", *lines)
    return "\r\n".join((*said, f"content-length: {length}", "", "")).encode()


def dial(server, data=b""):
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    connection.sendall(data)
    return connection


def rest(connection):
    """All that still comes, until the server closes."""
    content = b""
    try:
        while piece := connection.recv(65536):
            content += piece
    except ConnectionResetError:
        pass
    connection.close()
    return content


def ask(server, path=CHAT, method="POST", body=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    body = json.dumps(body if body is not None else {"messages": HI}) if method == "POST" else None
    connection.request(method, path, body, {"content-type": "application/json", **headers})
    answer = connection.getresponse()
    status, content, told = answer.status, answer.read(), dict(answer.getheaders())
    connection.close()
    return status, content, told


def until(true, seconds=10):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.01)


def in_thread(work, *arguments, **more):
    """Calls ``work`` in a thread; the list that is returned holds its result once there is one."""
    found = []
    threading.Thread(target=lambda: found.append(work(*arguments, **more)), daemon=True).start()
    return found


# Who


def test_without_a_key_only_this_machine_can_reach_it():
    for host in ("0.0.0.0", "::", "192.168.1.5", "example.org", "", "localhost.example.org"):
        with pytest.raises(ConfigError, match="Set api_key"):
            check_address(host, None)
        check_address(host, "key")
    for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost"):
        check_address(host, None)


def test_the_command_listens_on_this_machine_and_refuses_others_before_it_loads(monkeypatch):
    monkeypatch.delenv("FTK_API_KEY", raising=False)
    monkeypatch.setattr("ftk.run.Run.engine", lambda self: pytest.fail("loaded"))
    done = CliRunner().invoke(main, ["api", "ftk://tiny-chat", "--template", "chatml", "--api_host", "0.0.0.0"])
    assert done.exit_code == 2
    assert "0.0.0.0 can be reached by others" in done.output


def test_a_key_is_wanted_everywhere_but_for_health(served, scripted):
    with served(scripted(), key="sesame") as server:
        for path, method in (
            (CHAT, "POST"),
            ("/v1/models", "GET"),
            ("/metrics", "GET"),
            ("/openapi.json", "GET"),
            ("/x", "GET"),
        ):
            for said in (
                {},
                {"authorization": "Bearer wrong"},
                {"authorization": "sesame"},
                {"authorization": "Bearer "},
                {"authorization": "Basic sesame"},
                {"authorization": b"Bearer \xff"},
            ):
                status, content, told = ask(server, path, method, **said)
                assert (status, json.loads(content)["error"]["code"]) == (401, "invalid_api_key")
                assert told["www-authenticate"] == "Bearer"
        assert ask(server, authorization="Bearer sesame")[0] == 200
        assert ask(server, "/health", "GET")[0] == 200
        assert len(server.engine.asked) == 1


def test_keys_are_compared_in_constant_time(served, scripted, monkeypatch):
    compared, compare = [], hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda *both: compared.append(both) or compare(*both))
    with served(scripted(), key="sesame") as server:
        ask(server, authorization="Bearer sesamo")
    assert compared == [(b"sesamo", b"sesame")]


def test_without_a_key_a_name_that_was_made_to_point_here_is_refused(served, scripted):
    with served(scripted()) as server:
        for name in ("evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1.evil.example"):
            assert ask(server, host=name)[0] == 403
        for name in ("localhost", "localhost:1", f"127.0.0.1:{server.port}", "[::1]:8000", "192.168.1.1"):
            assert ask(server, host=name)[0] == 200
    with served(scripted(), key="sesame") as server:
        assert ask(server, host="models.example", authorization="Bearer sesame")[0] == 200


def test_web_pages_may_ask_only_from_origins_that_are_named(served, scripted):
    with served(scripted()) as server:
        assert "access-control-allow-origin" not in ask(server, origin="http://evil.example")[2]
    with served(scripted(), api_cors=("http://localhost:3000",)) as server:
        assert ask(server, origin="http://localhost:3000")[2]["access-control-allow-origin"] == "http://localhost:3000"
        assert "access-control-allow-origin" not in ask(server, origin="http://evil.example")[2]


def test_media_of_the_server_and_of_the_network_are_refused_through_the_api(served, scripted, tmp_path):
    (tmp_path / "cat.png").write_bytes(b"cat")

    def shown(kind, source):
        content = [{"type": f"{kind}_url", f"{kind}_url": {"url": source}}]
        return ask(server, body={"messages": [{"role": "user", "content": content}]})[0]

    with served(scripted()) as server:
        for kind in ("image", "video", "audio"):
            for source in ("/etc/passwd", "file:///etc/passwd", "cat.png", "http://127.0.0.1/", "http://8.8.8.8/"):
                assert shown(kind, source) == 403
        part = {"type": "image", "path": "/etc/passwd"}
        assert ask(server, body={"messages": [{"role": "user", "content": [part]}]})[0] == 403
        for part in ({"type": "video", "video": ["/etc/passwd"]}, {"type": "image", "image": {"path": "/etc/passwd"}}):
            assert ask(server, body={"messages": [{"role": "user", "content": [part]}]})[0] in (400, 403)
        messages = [[*HI, {"role": "assistant", "content": [{"type": "image_url", "image_url": "/etc/passwd"}]}]]
        assert ask(server, "/v1/score", body={"messages": messages})[0] == 403
        assert server.engine.asked == []
    with served(scripted(), api_media_dir=str(tmp_path)) as server:
        assert shown("image", "cat.png") == 200
        assert shown("image", "../../etc/passwd") == 403
        assert shown("image", "http://8.8.8.8/") == 403
        many = [{"type": "image_url", "image_url": "cat.png"}] * 33
        assert ask(server, body={"messages": [{"role": "user", "content": many}]})[0] == 400


# How much


def test_more_than_the_queue_holds_are_told_to_come_again(served, scripted):
    with served(scripted(pause=0.05), api_max_concurrency=2, api_max_queue=1) as server:
        found = [in_thread(ask, server) for _ in range(3)]
        until(lambda: (server.desk.running, server.desk.waiting) == (2, 1))
        status, content, told = ask(server)
        assert (status, json.loads(content)["error"]["type"]) == (429, "rate_limit_error")
        assert told["retry-after"]
        assert ask(server, "/health", "GET")[0] == 200
        assert b"ftk_running 2.0" in ask(server, "/metrics", "GET")[1]
        until(lambda: all(found))
        assert [one[0][0] for one in found] == [200] * 3
        assert (server.desk.running, server.desk.waiting) == (0, 0)


def test_answers_have_a_length_whatever_is_asked_for(served, scripted):
    with served(scripted(), api_max_tokens=7) as server:
        ask(server, body={"messages": HI, "max_tokens": 10**9})
        ask(server)
        assert [sampling.max_new_tokens for _, sampling in server.engine.asked] == [7, 7]


def test_more_requests_than_may_be_open_are_refused(served, scripted, monkeypatch):
    monkeypatch.setattr("ftk_api.command.SPARE", 0)
    with served(scripted(), api_max_concurrency=2, api_max_queue=1) as server:
        waiting = [dial(server, head(server, 100)) for _ in range(3)]
        time.sleep(0.2)
        status, _, told = ask(server)
        assert (status, told["retry-after"]) == (503, "5")
        for one in waiting:
            one.close()
        until(lambda: ask(server)[0] == 200)


# Slow and broken


def test_a_slow_head_a_slow_body_and_a_silent_connection_are_ended(served, scripted):
    with served(scripted(), api_timeout=0.5) as server:
        began = time.monotonic()
        silent, half = dial(server), dial(server, head(server, 100)[:30])
        slow = dial(server, head(server, 100) + b'{"mess')
        used = dial(server, head(server, 2) + b"{}")
        dripping = dial(server, b"POST")
        gone = in_thread(drip, dripping)
        assert rest(silent) == rest(half) == b""
        assert b" 408 " in rest(slow).partition(b"\r\n")[0]
        until(lambda: gone)
        assert time.monotonic() - began < 5
        assert used.recv(65536).startswith(b"HTTP/1.1 400 ")
        used.sendall(head(server, 100)[:30])  # the head of a second request that never comes
        assert b"HTTP" not in rest(used)
        assert ask(server)[0] == 200
        until(lambda: not server.server.server_state.connections)


def drip(connection):
    try:
        while True:
            connection.sendall(b"T")
            time.sleep(0.05)
    except OSError:
        return True


def test_a_head_that_is_too_long_or_no_http_is_refused(served, scripted):
    with served(scripted()) as server:
        for data in (
            head(server, 2, f"x-long: {'x' * 100_000}") + b"{}",
            b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n",
            b"GET / HTTP/1.1\r\n\r\n",  # no host
            head(server, 2, "content-length: 3") + b"{}x",
            head(server, 2, "transfer-encoding: gzip, chunked") + b"{}",
            b"GET /\xff HTTP/1.1\r\nhost: localhost\r\n\r\n",
        ):
            answer = rest(dial(server, data))
            assert answer.split(b" ")[1:2] in ([b"400"], [b"413"], [b"431"], [b"501"]), (data[:50], answer)
            assert b'"error"' in answer
        assert ask(server)[0] == 200


def test_a_client_that_does_not_read_is_cut_off(served, scripted):
    texts = {"Hi": "x" * 4000}

    class Flood(scripted):
        def stream(self, prompt, sampling):
            reply = yield from super().stream(prompt, sampling)
            return reply

        def text(self, prompt):
            return ["y" * 10_000] * 3000

    with served(Flood(texts), api_timeout=0.5) as server:
        connection = dial(server)
        body = json.dumps({"prompt": "Hi", "stream": True, "max_tokens": 4000}).encode()
        connection.sendall(head(server, len(body)).replace(CHAT.encode(), b"/v1/completions") + body)
        until(lambda: server.engine.asked)
        until(lambda: not server.server.server_state.connections)
        until(lambda: server.desk.running == 0)
        connection.close()


# Who goes away


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("n", [1, 2])
def test_a_client_that_goes_away_stops_its_answers(served, scripted, stream, n):
    with served(scripted({"Hi": "x" * 10_000}, pause=0.01)) as server:
        body = json.dumps({"messages": HI, "stream": stream, "n": n}).encode()
        connection = dial(server, head(server, len(body)) + body)
        until(lambda: server.engine.made > 5)
        connection.close()
        until(lambda: server.engine.closed == n)
        assert server.engine.made < 5000
        until(lambda: server.desk.running == 0)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_leaves_the_queue(served, scripted, stream):
    with served(scripted({"Hi": "x" * 100}, pause=0.01), api_max_concurrency=1) as server:
        found = in_thread(ask, server)
        until(lambda: server.desk.running == 1)
        body = json.dumps({"messages": HI, "stream": stream}).encode()
        connection = dial(server, head(server, len(body)) + body)
        until(lambda: server.desk.waiting == 1)
        connection.close()
        until(lambda: server.desk.waiting == 0)
        until(lambda: found)
        assert found[0][0] == 200
        assert len(server.engine.asked) == 1


def test_a_client_that_goes_away_leaves_the_batch_of_the_model(served, tiny_engine):
    with served(tiny_engine) as server:
        for stream in (False, True):
            body = json.dumps({"messages": HI, "stream": stream, "max_tokens": 1000, "temperature": 5, "top_p": 1})
            connections = [dial(server, head(server, len(body)) + body.encode()) for _ in range(3)]
            until(lambda: server.desk.running)
            for one in connections:
                one.close()
            until(lambda: server.desk.running == 0)
            until(lambda: not any(group.answers for group in tiny_engine._batcher._groups.values()))


# How it ends


def test_the_end_finishes_what_runs_and_refuses_what_waits(served, scripted):
    with served(scripted({"Hi": "x" * 60}, pause=0.02), api_max_concurrency=1) as server:
        runs = in_thread(ask, server, body={"messages": HI, "stream": True})
        until(lambda: server.desk.running == 1)
        waits = in_thread(ask, server)
        until(lambda: server.desk.waiting == 1)
        kept = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        kept.request("GET", "/health")
        kept.getresponse().read()
        server.end()
        until(lambda: runs and waits)
        assert runs[0][0] == 200
        assert runs[0][1].endswith(b"data: [DONE]\n\n")
        assert waits[0][0] == 503
        assert json.loads(waits[0][1])["error"]["type"] == "server_error"
        assert len(server.engine.asked) == 1
        with pytest.raises(ConnectionRefusedError):
            ask(server)


def test_a_signal_ends_the_command_when_its_answers_are_finished():
    words = ["ftk://tiny-chat", "--template", "chatml", "--api_port", "0", "--temperature", "5", "--top_p", "1"]
    code = "from ftk.cli import main; main()"
    command = [sys.executable, "-c", code, "api", *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        line = next(line for line in process.stderr if line.startswith("http://127.0.0.1:"))
        port = int(line.split(":")[2].split("/")[0])
        server = type("Server", (), {"port": port})
        ask(server, body={"messages": HI, "max_tokens": 1})
        body = json.dumps({"messages": HI, "stream": True, "max_tokens": 200}).encode()
        connection = dial(server, head(server, len(body), "connection: close") + body)
        connection.recv(100)
        process.send_signal(signal.SIGTERM)
        assert rest(connection).rstrip(b"\r\n0").endswith(b"data: [DONE]")
        assert process.wait(30) == 0
        assert "Traceback" not in process.stderr.read()
    finally:
        process.kill()
