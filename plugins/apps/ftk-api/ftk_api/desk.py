"""Where requests wait for their turn, and the threads in which the engine answers them."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from ftk import Prompt, Reply, Sampling
from ftk.types import RunningEngine

from ftk_api.refusals import Refusal

Tell = Callable[[Any], None]


class Desk:
    """Lets ``most`` answers be made at a time and ``queue`` more wait, first come, first served.

    closing: the server is going down; what waits and what comes is refused, what runs is finished. A turn ends with the
    work of the engine, not when the client has read the answer. Engines that make answers together tell of them by
    ``begin`` (see ftk-hf-engine); others get a thread for each.
    """

    def __init__(self, engine: RunningEngine, most: int, queue: int) -> None:
        self.engine, self.most, self.queue = engine, most, queue
        self.running = 0
        self.closing = False
        self._pool = ThreadPoolExecutor(most, thread_name_prefix="ftk-answer")
        self._line: deque[asyncio.Future[None]] = deque()
        self._news: deque[tuple[asyncio.Queue[Any], Any]] = deque()
        self._told = False

    @property
    def waiting(self) -> int:
        return len(self._line)

    async def _turn(self) -> None:
        """Returns when it is this answer's turn, which :meth:`_done` ends. Raises Refusal."""
        self._refuse_if_closing()
        if self.running < self.most and not self._line:
            self.running += 1
            return
        if len(self._line) >= self.queue:
            raise Refusal(429, f"{self.running} answers are being made and {self.waiting} wait. Try again later")
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append(mine)
        try:
            await mine
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled() and mine.exception() is None:
                self._done()
            else:
                with suppress(ValueError):
                    self._line.remove(mine)
            raise

    def _done(self) -> None:
        while self._line:
            following = self._line.popleft()
            if not following.done():
                following.set_result(None)
                return
        self.running -= 1

    def close(self) -> None:
        """Refuse what waits and what comes."""
        self.closing = True
        while self._line:
            one = self._line.popleft()
            if not one.done():
                one.set_exception(_closing())

    def shut(self) -> None:
        """End the threads, when nothing runs any more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _refuse_if_closing(self) -> None:
        if self.closing:
            raise _closing()

    async def stream(self, prompt: Prompt, sampling: Sampling, pieces: bool = True) -> AsyncIterator[str | Reply]:
        """The pieces of an answer as they come, then the reply; without ``pieces`` the reply alone.

        An iterator that is closed stops the model.
        """
        loop = asyncio.get_running_loop()
        news: asyncio.Queue[Any] = asyncio.Queue()
        gone = threading.Event()

        def tell(item: Any) -> None:
            self._news.append((news, item))
            if not self._told:  # one waking of the loop for the news of all answers
                self._told = True
                with suppress(RuntimeError):  # the loop has ended
                    loop.call_soon_threadsafe(self._deliver)

        await self._turn()
        self._pool.submit(_work, self.engine, prompt, sampling, pieces, gone, tell)
        try:
            while True:
                item = await news.get()
                if isinstance(item, Ended):
                    return
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            gone.set()

    def _deliver(self) -> None:
        self._told = False
        while self._news:
            news, item = self._news.popleft()
            if isinstance(item, Ended):
                self._done()
            news.put_nowait(item)

    async def call(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Something else that the engine does, in its turn, which lasts as long as the work."""
        await self._turn()
        done = asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)
        done.add_done_callback(lambda _: self._done())
        return await asyncio.shield(done)


class Ended:
    """The engine is through with an answer."""


def _closing() -> Refusal:
    return Refusal(503, "the server is going down")


def _work(
    engine: RunningEngine, prompt: Prompt, sampling: Sampling, pieces: bool, gone: threading.Event, tell: Tell
) -> None:
    """Tells pieces, then a reply or what went wrong, at last :class:`Ended`."""
    told = False
    try:
        begin = getattr(engine, "begin", None)
        if begin is not None and not gone.is_set():
            told = begin(prompt, sampling, _Follows(pieces, gone, tell))
        if not told:
            _stream(engine, prompt, sampling, pieces, gone, tell)
    except BaseException as error:
        tell(error)
    if not told:
        tell(Ended())


def _stream(
    engine: RunningEngine, prompt: Prompt, sampling: Sampling, pieces: bool, gone: threading.Event, tell: Tell
) -> None:
    made = engine.stream(prompt, sampling)
    try:
        while not gone.is_set():
            try:
                piece = next(made)
            except StopIteration as end:
                tell(end.value)
                return
            if pieces:
                tell(piece)
    finally:
        made.close()


class _Follows:
    """What an engine's ``begin`` tells of an answer: ``said(pieces)`` whether to go on, and once ``ended(result)``."""

    def __init__(self, pieces: bool, gone: threading.Event, tell: Tell) -> None:
        self.pieces, self.gone, self.tell = pieces, gone, tell

    def said(self, pieces: list[str]) -> bool:
        if self.pieces and pieces:
            self.tell("".join(pieces))
        return not self.gone.is_set()

    def ended(self, result: Reply | BaseException) -> None:
        self.tell(result)
        self.tell(Ended())
