"""SIGTERM and SIGINT: a checkpoint after the step, one line, and an exit code that says which signal it was.

A machine that is about to go away sends SIGTERM, Ctrl-C sends SIGINT. While a run trains, the first one lets it finish
the optimizer step, save a checkpoint and stop. At any other time there is nothing to save, so it stops at once. A
second one ends the process where it is, which loses the steps since the newest checkpoint and no more.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Any

from ftk import CheckpointError, FtkError, rundir

if TYPE_CHECKING:
    from ftk.run import Run

HEARD = (signal.SIGTERM, signal.SIGINT)
REPEATED = 1.0
"""Seconds in which a signal counts as the first one again: Ctrl-C reaches a whole group of processes, and a launcher in
it passes on what it has heard itself."""
SHOW_CURSOR = "\x1b[?25h"
NOTICE = "a checkpoint is written after this step, then the run stops; once more stops it at once"
AT_ONCE = "stopped. The same command goes on from the newest checkpoint, or begins again where there is none"


class Interrupted(FtkError):
    """A signal has ended the run. ``exit_code`` is 128 and its number, as shells have it: 143 or 130."""

    status = "interrupted"

    def __init__(self, number: int, said: str = AT_ONCE) -> None:
        super().__init__(f"{signal.Signals(number).name}: {said}")
        self.exit_code = 128 + number


class Signals:
    """What a run has been told by signals.

    number: the first one that this process heard, None while there was none. agreed: the one that the last call of
    :meth:`asked` returned, in all processes.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.number: int | None = None
        self.agreed: int | None = None
        self.process = os.getpid()
        self._at = 0.0
        self._saves = False
        self._before: dict[int, Any] = {}
        self._group: Any = None

    def start(self) -> None:
        """Listen from here on. Only a main thread can; elsewhere signals do what they did."""
        if threading.current_thread() is threading.main_thread() and not self._before:
            self._before = {number: signal.signal(number, self._hear) for number in HEARD}

    def stop(self) -> None:
        """What signals did before."""
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before = {}

    @contextmanager
    def saving(self) -> Iterator[None]:
        """In this block a signal waits for the end of the step. Raises Interrupted when there was one already."""
        if self.number is not None:
            raise Interrupted(self.number)
        self._saves = True
        try:
            yield
        finally:
            self._saves = False

    def asked(self) -> int | None:
        """The signal that any process of the run was sent, for all of them at the same step.

        Processes tell each other by the network and not by their devices, which so need not be waited for.
        """
        from torch import distributed, int64, tensor

        if not distributed.is_initialized() or distributed.get_world_size() == 1:
            self.agreed = self.number
            return self.agreed
        if self._group is None:
            self._group = distributed.new_group(backend="gloo")
        told = tensor(self.number or 0, dtype=int64)
        distributed.all_reduce(told, op=distributed.ReduceOp.MAX, group=self._group)
        self.agreed = int(told) or None
        return self.agreed

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.process:
            _in_child(number)
        elif self.number is None:
            self.number, self._at = number, time.monotonic()
            if not self._saves:
                raise Interrupted(number)
            _say(f"{signal.Signals(number).name}: {NOTICE}\n")
        elif time.monotonic() - self._at > REPEATED:
            self._leave(number)

    def _leave(self, number: int) -> None:
        if sys.stderr is not None and sys.stderr.isatty():
            _say(SHOW_CURSOR)
        said = str(Interrupted(number))
        with suppress(CheckpointError):
            self.run.record(status="interrupted", ended=rundir.now(), error=said)
        _say(f"error: {said}\n")
        os._exit(128 + number)


def of(run: Run) -> Signals:
    """What this run has been told."""
    return run.once("ftk_training.signals", lambda: Signals(run))


def _in_child(number: int) -> None:
    """A process that prepares batches: Ctrl-C is for its parent, which may need the batches of this step."""
    if number != signal.SIGINT:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def _say(text: str) -> None:
    """Past Python's buffers, which the interrupted code may be writing to."""
    with suppress(OSError):
        os.write(2, text.encode())
