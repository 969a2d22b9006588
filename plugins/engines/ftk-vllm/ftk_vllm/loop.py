"""An event loop in a thread of its own, for callers in other threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")
Piece = tuple[bool, Any]
"""Whether it is the last, and then what ended it: None or an exception."""


class Loop:
    """Runs coroutines for any number of threads at once."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What the coroutine returns. A caller who is interrupted cancels it."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def call(self, make: Callable[[], T]) -> T:
        """What a function returns that wants to be called where the loop runs."""

        async def called() -> T:
            return make()

        return self.run(called())

    def each(self, source: AsyncGenerator[T, None]) -> Generator[T, None, None]:
        """What an asynchronous generator yields. Closing this one closes that."""
        pieces: SimpleQueue[Piece] = SimpleQueue()

        async def pump() -> None:
            error: BaseException | None = None
            try:
                async for one in source:
                    pieces.put((False, one))
            except BaseException as raised:
                error = raised
                if isinstance(raised, asyncio.CancelledError):
                    raise
            finally:
                await source.aclose()
                pieces.put((True, error))

        future = asyncio.run_coroutine_threadsafe(pump(), self._loop)
        try:
            while True:
                last, one = pieces.get()
                if last:
                    if one is not None:
                        raise one
                    return
                yield one
        finally:
            future.cancel()

    def close(self) -> None:
        """End the thread. Calling it twice is harmless."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
