"""How many bytes of tensors are alive, now and at most, while code runs on tensors that have shapes and no contents.

torch's own ``MemTracker`` does this with a breakdown by module and takes seconds per layer for it.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten


class Live(TorchDispatchMode):
    """Counts each storage once, from when an operation returns a tensor on it until the last tensor on it is gone."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.peak = 0
        self.known: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.take(one for one in tree_flatten(out)[0] if isinstance(one, torch.Tensor))
        return out

    def take(self, tensors: Iterable[torch.Tensor]) -> None:
        """Count tensors that were made outside of this mode, too."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key in self.known:
                continue
            size = storage.nbytes()
            self.now += size
            self.peak = max(self.peak, self.now)
            self.known[key] = weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        if self.known.pop(key, None) is not None:
            self.now -= size

    def restart(self) -> None:
        self.peak = self.now


def num_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Of different storages."""
    sizes = {one.untyped_storage()._cdata: one.untyped_storage().nbytes() for one in tensors}
    return sum(sizes.values())
