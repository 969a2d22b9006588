"""Where requests wait for their turn, and the threads in which the engine answers them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any

from ftk import Prompt, Reply, Sampling
from ftk.types import RunningEngine

from ftk_api.refusals import Refusal


class Desk:
    """Lets ``most`` answers be made at a time and ``queue`` more wait.

    closing: the server is going down; what waits and what comes is refused, what runs is finished.
    """

    def __init__(self, engine: RunningEngine, most: int, queue: int) -> None:
        self.engine, self.most, self.queue = engine, most, queue
        self.waiting = self.running = 0
        self.closing = False
        self._pool = ThreadPoolExecutor(most, thread_name_prefix="ftk-answer")
        self._free = asyncio.Condition()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """The block is entered when it is this answer's turn. Raises Refusal."""
        self._refuse_if_closing()
        if self.running >= self.most and self.waiting >= self.queue:
            raise Refusal(429, f"{self.running} answers are being made and {self.waiting} wait. Try again later")
        self.waiting += 1
        try:
            async with self._free:
                await self._free.wait_for(lambda: self.running < self.most or self.closing)
                self._refuse_if_closing()
                self.running += 1
        finally:
            self.waiting -= 1
        try:
            yield
        finally:
            self.running -= 1
            with suppress(RuntimeError):
                asyncio.get_running_loop().create_task(self._wake())

    async def _wake(self) -> None:
        async with self._free:
            self._free.notify_all()

    async def close(self) -> None:
        """Refuse what waits and what comes."""
        self.closing = True
        await self._wake()

    def shut(self) -> None:
        """End the threads, when nothing runs any more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _refuse_if_closing(self) -> None:
        if self.closing:
            raise Refusal(503, "the server is going down")

    async def stream(self, prompt: Prompt, sampling: Sampling) -> AsyncIterator[str | Reply]:
        """The pieces of an answer as they come, then the reply. An iterator that is closed stops the model."""
        loop = asyncio.get_running_loop()
        news: asyncio.Queue[Any] = asyncio.Queue()
        gone = threading.Event()

        def tell(item: Any) -> None:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(news.put_nowait, item)

        async with self.turn():
            done = self._pool.submit(_work, self.engine, prompt, sampling, gone, tell)
            try:
                while True:
                    item = await news.get()
                    if isinstance(item, BaseException):
                        raise item
                    yield item
                    if isinstance(item, Reply):
                        return
            finally:
                gone.set()
                await asyncio.shield(asyncio.wrap_future(done))

    async def call(self, work: Any, *arguments: Any) -> Any:
        """Something else that the engine does, in its turn."""
        async with self.turn():
            return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)


def _work(engine: RunningEngine, prompt: Prompt, sampling: Sampling, gone: threading.Event, tell: Any) -> None:
    try:
        pieces = engine.stream(prompt, sampling)
        try:
            while not gone.is_set():
                try:
                    tell(next(pieces))
                except StopIteration as end:
                    tell(end.value)
                    return
        finally:
            pieces.close()
    except BaseException as error:
        tell(error)
