"""Sums over steps: tokens, time, and the metrics of stages with a loss of their own."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch

OVER = " over"
"""Ends the name under which the number of things that a metric is the mean over is summed."""
LESS = " less"
"""Ends the name under which the mean is summed that is taken from another one."""


def split(sums: Mapping[str, Any]) -> dict[str, Any]:
    """Sums with those that have their own number as two: ``name`` and ``name + OVER``; differences as four."""
    flat: dict[str, Any] = {}
    for name, value in sums.items():
        if isinstance(value, tuple):
            flat |= zip((name, name + OVER, name + LESS, name + LESS + OVER), value, strict=False)
        else:
            flat[name] = value
    return flat


def means(sums: Mapping[str, float], items: float) -> dict[str, float]:
    """The means of split sums over ``items``, or over their own number; a difference needs both of its means."""
    names = [name for name in sums if not name.endswith(OVER)]
    found = {name: float(sums[name]) / max(float(sums.get(name + OVER, items)), 1.0) for name in names}
    for name in [name for name in names if name.endswith(LESS)]:
        whole, less = name.removesuffix(LESS), found.pop(name)
        first = found.pop(whole)
        if sums[whole + OVER] and sums[name + OVER]:
            found[whole] = first - less
    return found


class Progress:
    """Sums that run on from one log line, and from one process, to the next.

    num_tokens, num_trained: tokens seen by this process, without padding, and those of them that were trained; tensors
        on the device until they are read.
    seconds: time spent in earlier processes of this run.
    """

    def __init__(self) -> None:
        self.num_tokens: Any = 0
        self.num_trained: Any = 0
        self.seconds = 0.0
        self.started = time.monotonic()
        self._logged_tokens = 0
        self._logged_at = self.started
        self._sums: dict[str, Any] = {}
        self._items: Any = 0

    def start(self) -> None:
        """The clock starts: the first step comes next."""
        self.started = self._logged_at = time.monotonic()

    def total_seconds(self) -> float:
        return self.seconds + time.monotonic() - self.started

    def add(self, sums: Mapping[str, Any], items: Any) -> None:
        """Metrics of one forward pass, as sums over its items, or over something else, see ``Loss``."""
        for name, value in split(sums).items():
            self._sums[name] = self._sums.get(name, 0) + torch.as_tensor(value).detach()
        self._items = self._items + items

    def since_log(self, now: float, accelerator: Any) -> dict[str, float]:
        """What to add to a log line: means of the metrics, tokens seen, tokens per second. Starts the next stretch."""
        totals = self.totals(accelerator)
        num_tokens, num_trained, items = (totals.pop(name) for name in ("num_tokens", "num_trained", "items"))
        logged = means(totals, items)
        logged["num_trained_tokens"] = int(num_trained)
        logged["num_tokens"] = int(num_tokens)
        logged["tokens_per_second"] = round((num_tokens - self._logged_tokens) / max(now - self._logged_at, 1e-9), 1)
        self._logged_tokens, self._logged_at = int(num_tokens), now
        self._sums, self._items = {}, 0
        return logged

    def totals(self, accelerator: Any) -> dict[str, float]:
        """Sums over all processes: tokens of the run; ``items`` and the metrics since the last log line."""
        tokens = {"num_tokens": self.num_tokens, "num_trained": self.num_trained}
        named = {**tokens, "items": self._items, **self._sums}
        values = [torch.as_tensor(value).to(accelerator.device, torch.float64) for value in named.values()]
        totals = torch.stack(values)
        if accelerator.num_processes > 1:
            totals = accelerator.gather(totals[None]).sum(dim=0)
        return dict(zip(named, totals.tolist(), strict=True))

    def state(self, accelerator: Any) -> dict[str, Any]:
        """What :meth:`restore` takes. Every process must call it."""
        return {
            "totals": self.totals(accelerator),
            "seconds": self.total_seconds(),
            "logged_tokens": self._logged_tokens,
        }

    def restore(self, state: Mapping[str, Any], *, first: bool) -> None:
        """Go on from ``state``; of several processes the ``first`` takes over the sums of all."""
        totals = dict(state["totals"])
        self.num_tokens, self._items = int(totals.pop("num_tokens")), totals.pop("items")
        self.num_trained = int(totals.pop("num_trained", 0))
        self._sums = totals
        if not first:
            self.num_tokens, self.num_trained, self._items = 0, 0, 0.0
            self._sums = dict.fromkeys(totals, 0.0)
        self.seconds, self._logged_tokens = state["seconds"], state["logged_tokens"]
