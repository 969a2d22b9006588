"""How much memory a run has used at most."""

from __future__ import annotations

import sys

import torch


def peak_bytes(device: torch.device) -> int:
    """Of a CUDA device what its tensors took at most; without one, what the process did. 0 where nobody can say."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    if device.type != "cpu" or sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
