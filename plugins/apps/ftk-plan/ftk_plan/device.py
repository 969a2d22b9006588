"""How much memory there is for a run on this machine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Device:
    """free, total: bytes. program: what the process takes beside its tensors: libraries, and on a GPU the context.

    kept: what the allocator takes for each byte of activations beside it, because pieces that were freed do not fit
    what is wanted next. Measured on a model of 10 million parameters: 0.4 to 1 for glibc. Of CUDA's it is a guess.
    """

    name: str
    free: int
    total: int
    program: int
    kept: float


def device_of(use_cpu: bool) -> Device:
    """The device that a run of one process trains on."""
    if torch.cuda.is_available() and not use_cpu:
        free, total = torch.cuda.mem_get_info()
        return Device(torch.cuda.get_device_name(), free, total, 600 * 2**20, 0.1)
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Device("CPU", _available() or total, total, resident(), 0.5)


def _available() -> int:
    """What Linux could hand out without swapping; 0 where nobody says."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), 0)


def resident() -> int:
    """Bytes of this process, which has the libraries of a run loaded and next to no tensors."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 600 * 2**20
