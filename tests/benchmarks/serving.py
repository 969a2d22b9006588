"""``ftk api`` on the embedded model: requests at concurrency 1, 8 and 32, each answer held against its prompt.

    python tests/benchmarks/serving.py [REQUESTS] [TOKENS]

Every request has a prompt and a seed of its own, sampled hot, so that few answers are alike; what it has to say is what
the engine says when it is asked for that answer alone. The rates are those of answers that come whole and of those that
are streamed; first: seconds to the first piece of text, median and 95 of 100. Beside them stands a bare loop of
``model.generate`` over the same prompts, one after the other, in a process of its own, with as many tokens at most.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field

from timing import machine

LEVELS = (1, 8, 32)
WORDS = ["ftk://tiny-chat", "--template", "chatml"]
ALONE = """
import json, sys, time
import torch
from ftk import Message, Prompt, Sampling
from ftk.opening import open_run
from ftk_data import renderer

bodies = json.load(sys.stdin)
run = open_run("chat", None, ["--model_name_or_path", "ftk://tiny-chat", "--template", "chatml"])
engine = run.engine()
said = []
for body in bodies:
    sampling = Sampling(body["max_tokens"], temperature=1.5, top_p=0.95, top_k=50, seed=body["seed"])
    reply = engine.generate([Prompt((Message("user", body["messages"][0]["content"]),))], sampling)[0]
    said.append((reply.text, reply.num_tokens))
model, tokenizer = engine.model, run.tokenizer
tokens = 0
began = time.perf_counter()
for body in bodies:
    text = "<|im_start|>user\\n" + body["messages"][0]["content"] + "<|im_end|>\\n<|im_start|>assistant\\n"
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)
    torch.manual_seed(body["seed"])
    how = dict(do_sample=True, temperature=1.5, top_k=50, top_p=0.95)
    out = model.generate(**ids, max_new_tokens=body["max_tokens"], **how)
    tokenizer.decode(out[0, ids["input_ids"].shape[1]:])
    tokens += out.shape[1] - ids["input_ids"].shape[1]
print(json.dumps({"said": said, "seconds": time.perf_counter() - began, "tokens": tokens}))
"""


@dataclass
class Level:
    """What one concurrency gave."""

    seconds: float = 0.0
    tokens: int = 0
    wrong: int = 0
    lost: int = 0
    first: list[float] = field(default_factory=list)


@contextmanager
def server(*words: str):
    """The port of a server in a process of its own, and its number."""
    command = [sys.executable, "-c", "from ftk.cli import main; main()", "api", *WORDS, "--api_port", "0", *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        line = next(line for line in process.stderr if line.startswith("http://127.0.0.1:"))
        threading.Thread(target=sys.stderr.writelines, args=(process.stderr,), daemon=True).start()
        yield int(line.split(":")[2].split("/")[0]), process.pid
    finally:
        process.terminate()
        process.wait(60)


async def ask(reader, writer, body: dict) -> tuple[str, int, float]:
    """The text of an answer, its tokens, and the seconds to its first piece (streamed) or to its end."""
    data = json.dumps(body).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    began = time.perf_counter()
    writer.write(f"{head}content-length: {len(data)}\r\n\r\n".encode() + data)
    said = (await reader.readuntil(b"\r\n\r\n")).lower()
    status = int(said.split(b" ", 2)[1])
    if b"content-length:" in said:
        answer = json.loads(await reader.readexactly(int(said.split(b"content-length:")[1].split(b"\r\n")[0])))
        if status != 200:
            raise RuntimeError(f"{status}: {answer}")
        return (
            answer["choices"][0]["message"]["content"],
            answer["usage"]["completion_tokens"],
            time.perf_counter() - began,
        )
    text, tokens, first = "", 0, 0.0
    while size := int((await reader.readline()).strip(), 16):
        chunk = (await reader.readexactly(size + 2))[:-2]
        for event in chunk.decode().split("\n\n"):
            if not event.startswith("data: {"):
                continue
            told = json.loads(event[6:])
            if told.get("usage"):
                tokens = told["usage"]["completion_tokens"]
            piece = "".join(one["delta"].get("content") or "" for one in told["choices"])
            if piece and not first:
                first = time.perf_counter() - began
            text += piece
    await reader.readline()
    return text, tokens, first


async def level(port: int, bodies: list[dict], expected: list, at_once: int, stream: bool) -> Level:
    found, waiting = Level(), list(enumerate(bodies))[::-1]

    async def worker() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**24)
        while waiting:
            number, body = waiting.pop()
            if stream:
                body = {**body, "stream": True, "stream_options": {"include_usage": True}}
            try:
                text, tokens, first = await ask(reader, writer, body)
            except (OSError, RuntimeError, asyncio.IncompleteReadError) as error:
                print(f"lost: {error}", file=sys.stderr)
                found.lost += 1
                reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**24)
                continue
            found.wrong += [text, tokens] != expected[number]
            found.tokens += tokens
            found.first.append(first)
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(at_once)))
    found.seconds = time.perf_counter() - began
    return found


def cpu_seconds(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def bodies_of(requests: int, tokens: int) -> list[dict]:
    return [
        {
            "messages": [{"role": "user", "content": f"Tell me about the number {number}, please."}], "seed": number,
            "temperature": 1.5, "top_p": 0.95, "top_k": 50, "max_tokens": tokens,
        }
        for number in range(requests)
    ]  # fmt: skip


def main(requests: int = 200, tokens: int = 32) -> int:
    bodies = bodies_of(requests, tokens)
    done = subprocess.run(
        [sys.executable, "-c", ALONE], input=json.dumps(bodies), capture_output=True, text=True, check=True
    )
    alone = json.loads(done.stdout.splitlines()[-1])
    expected = alone["said"]
    print(machine())
    print(f"{requests} requests of up to {tokens} tokens; {len({text for text, _ in expected})} different answers\n")
    print(
        "| answers | at once | requests/s | tokens/s | CPU ms per token | first, median | first, 95 % | wrong | lost |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    rate = requests / alone["seconds"]
    print(f"| model.generate | 1 | {rate:.1f} | {alone['tokens'] / alone['seconds']:,.0f} | | | | | |", flush=True)
    rates: dict[tuple[bool, int], float] = {}
    bad = 0
    with server() as (port, pid):
        asyncio.run(level(port, bodies[:8], expected, 8, False))  # warm
        for stream in (False, True):
            for at_once in LEVELS:
                used = cpu_seconds(pid)
                found = asyncio.run(level(port, bodies, expected, at_once, stream))
                used = cpu_seconds(pid) - used
                rates[stream, at_once] = found.tokens / found.seconds
                bad += found.wrong + found.lost
                first = sorted(found.first)
                told = (statistics.median(first), first[int(len(first) * 0.95)]) if stream else None
                print(
                    f"| {'streamed' if stream else 'whole'} | {at_once} | {requests / found.seconds:.1f} | "
                    f"{rates[stream, at_once]:,.0f} | {1000 * used / found.tokens:.2f} | "
                    + (f"{told[0]:.3f} s | {told[1]:.3f} s" if told else " | ")
                    + f" | {found.wrong} | {found.lost} |",
                    flush=True,
                )
    for stream, name in ((False, "whole"), (True, "streamed")):
        print(f"\n{name}: {rates[stream, 32] / rates[stream, 1]:.1f} times the rate of 1 at 32", end="")
    print()
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
