"""Bodies for ``ftk api`` that are bent in every way: none may be answered with a 500, or end the server.

    python tests/e2e/api_mutations.py [NUMBER] [SEED]

10,000 by default, made from right ones by changes to their values, their structure and their bytes; the seed makes them
come again. The short form of it runs in CI (plugins/apps/ftk-api/test_mutations.py).
"""

from __future__ import annotations

import collections
import http.client
import json
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {}}}}}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
TURNS = [
    {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]}, {"role": "tool", "tool_call_id": "c", "content": "1"},
    {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
]  # fmt: skip
IMAGE = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}}]}
RIGHT: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {"messages": TURNS, "tools": [TOOL], "tool_choice": "auto", "max_tokens": 1}),
    ("/v1/chat/completions", {
        "model": "tiny-chat", "messages": TURNS[1:2], "temperature": 1, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "n": 1,
        "seed": 1, "stop": ["x"], "presence_penalty": 0.5, "frequency_penalty": 0.5, "repetition_penalty": 1.1,
        "logprobs": True, "top_logprobs": 2, "stream": True, "stream_options": {"include_usage": True}, "max_tokens": 1,
        "stop_token_ids": [3],
    }),
    ("/v1/chat/completions", {
        "messages": [IMAGE], "max_completion_tokens": 1, "parallel_tool_calls": False, "max_tokens": 1,
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}},
    }),
    ("/v1/completions", {"prompt": ["a", "b"], "echo": True, "logprobs": None, "max_tokens": 1, "stream": False}),
    ("/v1/completions", {"prompt": [1, 2], "max_tokens": 1, "stream": True}),
    ("/v1/score", {"messages": [[TURNS[1], {"role": "assistant", "content": "Hello"}]]}),
    ("/v1/score/evaluation", {"messages": ["a"], "model": ""}),
    ("/v1/embeddings", {"input": ["a"], "encoding_format": "float"}),
]  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2, 1.5, 1e308, -1e-308, 10**30, -(2**63), 2**64, "", " ", "x", "\0", "\ud83d",
    "\U0001f600", "\u202e", "a" * 3000, "<|im_end|>", "<tool_call>", "<think>", "{{ x }}", "{% raw %}", "/etc/passwd",
    "http://127.0.0.1/", "data:,x", "null", "[]", [], {}, [[]], [{}], [None], {"": None}, {"role": "user"},
    {"type": "text"}, ["x"] * 50, {"$ref": "#"}, {"type": "function"}, "assistant", "tool", "system", "image_url",
    "required", "../../etc/passwd",
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The ways to all that is inside a value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield (*path, key)
        yield from places(one, (*path, key))


def bent(body: Any, chance: random.Random) -> Any:
    """The body with one change."""
    made = json.loads(json.dumps(body))
    found = list(places(made))
    if not found or not isinstance(made, (dict, list)):
        return made
    *way, last = chance.choice(found)
    at = made
    for key in way:
        at = at[key]
    kind = chance.randrange(6)
    if kind <= 2:
        at[last] = chance.choice(VALUES)
    elif kind == 3:
        del at[last]
    elif kind == 4:
        at[last] = [at[last]] if chance.random() < 0.5 else {chance.choice(["x", "type", "content"]): at[last]}
    elif isinstance(at, dict):
        at[chance.choice(["content", "role", "tool_calls", "x", "reasoning_content", "name"])] = chance.choice(VALUES)
    else:
        at.insert(last, chance.choice(VALUES))
    return made


def mutated(number: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """(path, body) of ``number`` requests."""
    chance = random.Random(seed)
    for _ in range(number):
        path, body = chance.choice(RIGHT)
        for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
            body = bent(body, chance)
        data = bytearray(json.dumps(body, ensure_ascii=chance.random() < 0.5).encode(errors="surrogatepass"))
        if chance.random() < 0.15:
            for _ in range(chance.randrange(1, 4)):
                place = chance.randrange(len(data) + 1)
                if chance.random() < 0.5:
                    data[place : place + chance.randrange(5)] = bytes([chance.randrange(256)])
                else:
                    data = (
                        data[:place] if chance.random() < 0.3 else data[:place] + chance.choice(PIECES) + data[place:]
                    )
        yield path, bytes(data)


PIECES = [b"NaN", b"Infinity", b"[" * 200, b"{", b"}", b'"', b"\\ud800", b"1e999", b"\xff", b"\0", b"9" * 5000, b","]


def send(connection: http.client.HTTPConnection, path: str, body: bytes) -> tuple[int, bytes]:
    connection.request("POST", path, body, {"content-type": "application/json"})
    answer = connection.getresponse()
    return answer.status, answer.read()


def problem(status: int, content: bytes) -> str:
    """What is wrong with an answer, empty when nothing is."""
    if b"Traceback" in content:
        return "a traceback"
    if status == 200:
        return ""
    if status in (501, 503) or 400 <= status < 500:
        try:
            return "" if set(json.loads(content)["error"]) == {"message", "type", "param", "code"} else "another shape"
        except (ValueError, KeyError, TypeError):
            return "another shape"
    return f"status {status}"


def main(number: int = 10_000, seed: int = 0) -> int:
    command = [sys.executable, "-c", "from ftk.cli import main; main()", "api", "ftk://tiny-chat", "--api_port", "0"]
    process = subprocess.Popen(
        [*command, "--template", "qwen", "--api_max_tokens", "8"], stderr=subprocess.PIPE, text=True
    )
    found: collections.Counter[int] = collections.Counter()
    bad = 0
    try:
        line = next(line for line in process.stderr or () if line.startswith("http://127.0.0.1:"))
        threading.Thread(target=sys.stderr.writelines, args=(process.stderr,), daemon=True).start()
        connection = http.client.HTTPConnection("127.0.0.1", int(line.split(":")[2].split("/")[0]), timeout=60)
        for path, body in mutated(number, seed):
            try:
                status, content = send(connection, path, body)
            except OSError as error:
                raise SystemExit(f"no answer ({error}): {path} {body[:2000]!r}") from error
            found[status] += 1
            if wrong := problem(status, content):
                bad += 1
                print(f"{wrong}: {path} {body[:500]!r}\n    {content[:300]!r}", flush=True)
        status, _ = send(connection, "/v1/completions", b'{"prompt": "a", "max_tokens": 1}')
        print(f"{number} bodies, seed {seed}: {dict(sorted(found.items()))}; {bad} bad; then {status}")
    finally:
        process.terminate()
        process.wait(60)
    return int(bool(bad) or status != 200 or process.returncode != 0)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
