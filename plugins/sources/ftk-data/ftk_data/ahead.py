"""Making things in a thread, a bounded amount ahead of whoever takes them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Iterator[T], Generic[T]):
    """The items of an iterable, in its order. An error in it is raised when everything before it has been taken.

    items: is used in the thread only. weigh: item → its weight; the thread waits while ``limit`` lies ready.
    """

    def __init__(self, items: Iterable[T], weigh: Callable[[T], int], limit: int) -> None:
        self._items, self._weigh, self._limit = items, weigh, limit
        self._ready: deque[T] = deque()
        self._weight = 0
        self._over = self._closed = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._make, name="ftk rows", daemon=True)
        self._thread.start()

    def __next__(self) -> T:
        with self._changed:
            while not self._ready and not self._over:
                self._changed.wait()
            if not self._ready:
                raise self._error or StopIteration
            item = self._ready.popleft()
            self._weight -= self._weigh(item)
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """Make nothing more, and wait for what is being made."""
        with self._changed:
            self._closed = self._over = True
            self._ready.clear()
            self._changed.notify_all()
        if self._thread is not threading.current_thread():  # whom the garbage collector may have sent here
            self._thread.join()

    def _make(self) -> None:
        try:
            for item in self._items:
                if not self._put(item):
                    return
        except BaseException as error:  # is raised again where the items are taken
            self._error = error
        finally:
            with self._changed:
                self._over = True
                self._changed.notify_all()

    def _put(self, item: T) -> bool:
        """Whether anybody still wants it."""
        with self._changed:
            while self._weight >= self._limit and not self._closed:
                self._changed.wait()
            if not self._closed:
                self._ready.append(item)
                self._weight += self._weigh(item)
                self._changed.notify_all()
            return not self._closed
