"""The memory of a process and of all that it started, watched while it runs (Linux).

Read from ``/proc/PID/smaps_rollup``, which counts a page that several processes share once (its proportional size).
Anonymous memory is what a program has allocated, and it must fit into RAM. Pages of files, such as libraries and the
mapped files of a cache, are copies of what lies on disk: the system drops them when it needs the room.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from pathlib import Path


@dataclass(frozen=True)
class Peak:
    """The most of each at any moment, in MiB; the peaks need not fall together. total_mib: both kinds at one moment."""

    anonymous_mib: float = 0.0
    file_mib: float = 0.0
    total_mib: float = 0.0
    processes: int = 0


class Watch:
    """Looks every ``interval_s`` at a process and its descendants, in a thread of its own, until it is stopped."""

    def __init__(self, pid: int, interval_s: float = 0.1) -> None:
        self.pid, self.interval_s = pid, interval_s
        self.peak = Peak()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_on, daemon=True)
        self._thread.start()

    def stop(self) -> Peak:
        self._over.set()
        self._thread.join()
        return self.peak

    def _look_on(self) -> None:
        while not self._over.is_set():
            self.look()
            self._over.wait(self.interval_s)

    def look(self) -> None:
        sizes = [size for size in map(_sizes, tree(self.pid)) if size]
        anonymous, of_files = (sum(size[kind] for size in sizes) / 1024 for kind in (0, 1))
        self.peak = replace(
            self.peak,
            anonymous_mib=max(self.peak.anonymous_mib, anonymous),
            file_mib=max(self.peak.file_mib, of_files),
            total_mib=max(self.peak.total_mib, anonymous + of_files),
            processes=max(self.peak.processes, len(sizes)),
        )


def tree(pid: int) -> list[int]:
    """A process and its descendants."""
    found = [pid]
    for parent in found:
        try:
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
        except OSError:
            continue  # it has ended
    return found


def _sizes(pid: int) -> tuple[int, int] | None:
    """(anonymous, of files) in KiB, None for a process that has ended. Shared memory counts as anonymous."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return None
    sizes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines[1:])}
    return (sizes["Pss_Anon"] + sizes["Pss_Shmem"], sizes["Pss_File"]) if sizes else None
