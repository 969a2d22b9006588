"""``ftk api`` under steady load for ten minutes: nothing lost, nothing wrong, and memory that stays where it is.

    python tests/benchmarks/serving_soak.py [SECONDS] [AT_ONCE]

Answers are whole and streamed in turn; every tenth client goes away in the middle, every tenth sends nonsense. Resident
memory of the server is told ten times. It fails when the last is more than 5 % and 20 MiB above the one after the first
fifth, or when threads or open files are left over at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time

from serving import ask, bodies_of, server
from timing import machine


def told(pid: int) -> tuple[float, int, int]:
    """Resident MiB, threads and open files."""
    with open(f"/proc/{pid}/status") as file:
        fields = dict(line.split(":", 1) for line in file)
    return int(fields["VmRSS"].split()[0]) / 1024, int(fields["Threads"]), len(os.listdir(f"/proc/{pid}/fd"))


async def load(port: int, until: float, at_once: int, counts: dict[str, int]) -> None:
    bodies = bodies_of(500, 32)
    known: dict[int, str] = {}

    async def worker(number: int) -> None:
        turn = number
        while time.monotonic() < until:
            turn += at_once
            body = bodies[turn % len(bodies)]
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**24)
            try:
                if turn % 10 == 3:
                    data = json.dumps({**body, "stream": True, "max_tokens": 500}).encode()
                    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(data)}\r\n"
                    writer.write(head.encode() + b"content-type: application/json\r\n\r\n" + data)
                    await reader.read(200)
                    counts["left"] += 1
                elif turn % 10 == 7:
                    with contextlib.suppress(RuntimeError):
                        await ask(reader, writer, {**body, "temperature": "hot"})
                        counts["wrong"] += 1
                    counts["nonsense"] += 1
                else:
                    more = {"stream": True, "stream_options": {"include_usage": True}} if turn % 2 else {}
                    text, _, _ = await ask(reader, writer, {**body, **more})
                    counts["wrong"] += known.setdefault(turn % len(bodies), text) != text
                    counts["answered"] += 1
            except (OSError, asyncio.IncompleteReadError) as error:
                print(f"lost: {error!r}", flush=True)
                counts["lost"] += 1
            finally:
                writer.close()

    await asyncio.gather(*(worker(number) for number in range(at_once)))


def main(seconds: int = 600, at_once: int = 16) -> int:
    print(machine())
    counts = dict.fromkeys(("answered", "wrong", "lost", "left", "nonsense"), 0)
    with server() as (port, pid):
        asyncio.run(load(port, time.monotonic() + 2, at_once, counts))
        seen = []
        for part in range(10):
            asyncio.run(load(port, time.monotonic() + seconds / 10, at_once, counts))
            time.sleep(0.5)
            seen.append(told(pid))
            memory, threads, files = seen[-1]
            print(
                f"{(part + 1) * seconds // 10:5d} s: {memory:.0f} MiB, {threads} threads, {files} files, {counts}",
                flush=True,
            )
    early, late = seen[1][0], seen[-1][0]
    grown = late > early * 1.05 and late > early + 20
    left_over = seen[-1][1] > seen[1][1] + 2 or seen[-1][2] > seen[1][2] + 2
    bad = grown or left_over or counts["wrong"] or counts["lost"]
    print(f"{early:.0f} → {late:.0f} MiB; {'NOT ' if bad else ''}steady")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
