"""What a plain HTTP client sends that is wrong: an error in OpenAI's shape with the right status, never a traceback.

The shape is that of the API reference (``error``: message, type, param, code). ``mutating.py`` bends more bodies.
"""

import http.client
import json
import logging
import time

import pytest

HI = [{"role": "user", "content": "Hi"}]
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


@pytest.fixture(scope="module")
def server(served, tiny_engine):
    with served(tiny_engine, api_max_body=100_000) as server:
        yield server


def send(server, method, path, body=None, **headers):
    """(status, JSON, headers)"""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    if isinstance(body, str):
        body = body.encode()
    elif body is not None and not isinstance(body, bytes):
        body = json.dumps(body)
    headers = {"content-type": "application/json", **{key.replace("_", "-"): value for key, value in headers.items()}}
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, json.loads(content), dict(answer.getheaders())


def refused(server, path, body, status=400, **headers):
    found, content, _ = send(server, "POST", path, body, **headers)
    assert found == status, content
    assert set(content) == {"error"}
    error = content["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert "Traceback" not in error["message"]
    return error


def chat(**more):
    return {"messages": HI, "max_tokens": 2, **more}


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b'{"messages": [1, }', "line 1, column"),
        (b'{"messages": "\xff"}', "not UTF-8: byte 14"),
        (b'\xef\xbb\xbf{"messages": []}', "not JSON"),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', "surrogate"),
        (b'{"\\udfff": 1, "messages": []}', "surrogate"),
        (b'{"temperature": NaN}', "NaN"),
        (b'{"temperature": -Infinity}', "-Infinity"),
        (b'{"temperature": 1e999}', "too large"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "too long"),
        (b'{"model": "a", "model": "b"}', "'model' twice"),
        (b"[" * 50_000, "64 deep"),
        (b'{"messages": ' + b"[" * 100 + b"]" * 100 + b"}", "64 deep"),
        (b'{"a":' * 70 + b"1" + b"}" * 70, "64 deep"),
    ],
)
def test_what_is_no_clean_json_is_refused_with_the_reason(server, body, word):
    for path in (CHAT, TEXT, "/v1/score", "/v1/embeddings"):
        error = refused(server, path, body)
        assert word in error["message"]
        assert error["param"] is None
        assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize("body", [[], "text", 1, None, True, [chat()]])
def test_a_body_that_is_no_object_is_refused(server, body):
    refused(server, CHAT, json.dumps(body))


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": "Hi"}, "messages"),
        ({"messages": ["Hi"]}, "messages"),
        ({"messages": [{}]}, "messages"),
        ({"messages": [{"role": "wizard", "content": "Hi"}]}, "messages"),
        ({"messages": [{"role": ["user"], "content": "Hi"}]}, "messages"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages"),
        ({"messages": [{"role": "user", "content": [7]}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "hologram"}]}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": 5}}]}]}, "messages"),
        ({"messages": [{"role": "tool", "content": "hot"}]}, "messages"),
        ({"messages": [*HI, {"role": "assistant", "content": "Hello"}]}, "messages"),
        ({"messages": [*HI, {"role": "assistant", "tool_calls": [{"function": 3}]}, *HI]}, "messages"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": 10**400}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"n": 0}, "n"),
        ({"n": 10**30}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"seed": 2**63}, "seed"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"stop": {"x": 1}}, "stop"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"stream": "maybe"}, "stream"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"tools": "weather"}, "tools"),
        ({"tools": [3]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": "sometimes"}, "tool_choice"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"logit_bias": {"1": 100}}, None),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named(server, more, param):
    assert refused(server, CHAT, chat(**more))["param"] == param
    if "messages" not in more:
        assert refused(server, CHAT, chat(stream=True) | more)["param"] == param  # before the first event


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"prompt": None}, "prompt"), ({"prompt": []}, "prompt"), ({"prompt": [1, "a"]}, "prompt"),
        ({"prompt": [[]]}, "prompt"), ({"prompt": [-1]}, "prompt"), ({"prompt": [10**9]}, None),
        ({"prompt": ["x"] * 257}, "prompt"), ({"prompt": ["x"] * 200, "n": 2}, "n"),
        ({"prompt": "x", "echo": True, "logprobs": 1}, "echo"), ({"prompt": "x", "suffix": "y"}, None),
    ],
)  # fmt: skip
def test_a_wrong_field_of_a_completion_is_named(server, more, param):
    assert refused(server, TEXT, {"max_tokens": 2, **more})["param"] == param


def test_unusual_but_right_requests_are_answered(server):
    for more in (
        {"messages": [{"role": "user", "content": ""}]},
        {"messages": [{"role": "user", "content": []}]},
        {"messages": [{"role": "system", "content": "Be brief."}, *HI]},
        {"messages": [{"role": "developer", "content": "Be brief."}, *HI]},
        {"messages": [{"role": "user", "content": "\u0000 \U0001f600 \u202e text"}]},
        {"stop": ""}, {"stop": []}, {"top_k": -1}, {"top_k": 10**30}, {"max_tokens": 10**30},
        {"stop_token_ids": [2, 10**30]},
        {"temperature": 1e-300}, {"seed": -(2**63)}, {"unknown": {"x": [1]}}, {"tools": []}, {"model": ""},
    ):  # fmt: skip
        status, content, _ = send(server, "POST", CHAT, {**chat(), **more})
        assert status == 200, (more, content)
    for prompt in ("", [0], ["", "x"], "\u0000"):
        assert send(server, "POST", TEXT, {"prompt": prompt, "max_tokens": 2})[0] == 200


def test_a_prompt_longer_than_the_model_reads_says_so(server):
    for stream in (False, True):
        error = refused(server, CHAT, chat(messages=[{"role": "user", "content": "word " * 5000}], stream=stream))
        assert error["code"] == "context_length_exceeded"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "json"])
def test_only_json_is_read_so_that_no_foreign_page_can_send_it(server, kind):
    refused(server, CHAT, chat(), status=415, content_type=kind)
    assert send(server, "POST", CHAT, chat(), content_type="Application/JSON; charset=utf-8")[0] == 200


def test_a_wrong_path_or_method_is_an_error_of_the_same_shape(server):
    for method, path, status in (
        ("GET", "/", 404), ("GET", "/v1/nothing", 404), ("GET", CHAT, 405), ("DELETE", "/v1/models", 405),
        ("GET", "/v1/models/..%2f..%2fetc%2fpasswd", 404), ("GET", "/docs", 404), ("OPTIONS", CHAT, 405),
    ):  # fmt: skip
        found, content, _ = send(server, method, path)
        assert (found, set(content["error"])) == (status, {"message", "type", "param", "code"})


def test_a_body_that_is_too_large_is_refused_by_its_length_and_while_it_comes(server):
    refused(server, CHAT, chat(messages=[{"role": "user", "content": "x" * 100_000}]), status=413)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    pieces = (b"x" * 10_000 for _ in range(11))
    connection.request("POST", CHAT, pieces, {"content-type": "application/json"}, encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()


def test_a_broken_image_is_the_client_s_mistake(server):
    for source in ("data:image/png;base64,!!!", "data:image/png", "data:;base64,QQ==", "data:image/png;base64,QQ=="):
        part = {"type": "image_url", "image_url": {"url": source}}
        refused(server, CHAT, chat(messages=[{"role": "user", "content": [part]}]))


def test_a_failure_of_the_server_tells_nothing_of_it(served, scripted, caplog):
    class Broken(scripted):
        def stream(self, prompt, sampling):
            raise RuntimeError("secret path /root/weights")
            yield

    with served(Broken()) as server:
        error = refused(server, CHAT, chat(), status=500)
        assert error["type"] == "server_error"
        assert "secret" not in json.dumps(error)
    assert "secret path" in caplog.text  # the log of the server says why


def test_the_log_holds_no_word_of_a_request(server, caplog):
    caplog.set_level(logging.DEBUG)
    for body in (chat(messages=[{"role": "user", "content": "xyzzy"}]), chat(temperature="xyzzy"), b'{"xyzzy'):
        send(server, "POST", CHAT, body)
    send(server, "GET", "/v1/mod%0Aels?q=xyzzy")
    until = time.monotonic() + 10  # a line is written behind its response
    while "mod\\nels" not in caplog.text and time.monotonic() < until:
        time.sleep(0.05)
    assert "xyzzy" not in caplog.text
    assert CHAT in caplog.text
    assert "mod\\nels" in caplog.text


def metrics(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))


def test_the_metrics_count_what_was_answered(server):
    send(server, "POST", CHAT, chat())
    for _ in range(400):  # what earlier tests gave up may still be coming to its end
        lines = metrics(server)
        if lines["ftk_running"] == "0.0":
            break
        time.sleep(0.05)
    assert float(lines['ftk_requests_total{path="/v1/chat/completions",status="200"}']) >= 1
    assert float(lines["ftk_generated_tokens_total"]) >= 1
    assert lines["ftk_running"] == "0.0"
    assert send(server, "GET", "/health")[1] == {"status": "ok"}
