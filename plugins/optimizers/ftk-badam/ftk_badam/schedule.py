"""Which block learns when. Everything follows from the number of steps and the seed, so nothing has to be kept."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch


@dataclass(frozen=True)
class Schedule:
    """The order of blocks that the authors' optimizer keeps (badam 1.4, ``BlockOptimizer``).

    As there, the first block gets one step less than the others.
    """

    num_blocks: int
    interval: int
    mode: str
    start: int | None
    seed: int

    def switches(self, num_steps: int) -> int:
        """How often the block has been switched when ``num_steps`` steps are done."""
        if self.interval < 0 or self.mode == "fixed":
            return 0
        return (num_steps + 1) // self.interval - 1 // self.interval

    def block(self, num_steps: int) -> int:
        """The block that learns in the step after ``num_steps`` steps."""
        times = self.switches(num_steps)
        if self.mode == "random":
            if self.start is not None and times == 0:
                return self.start
            return self._drawn(times if self.start is None else times - 1)
        first = (self.num_blocks - 1 if self.mode == "descending" else 0) if self.start is None else self.start
        return (first - times if self.mode == "descending" else first + times) % self.num_blocks

    def _drawn(self, number: int) -> int:
        """Rounds through all blocks, each in an order of its own."""
        generator = torch.Generator().manual_seed(self.seed + number // self.num_blocks)
        order = torch.randperm(self.num_blocks, generator=generator)
        return int(order[number % self.num_blocks])


@lru_cache(maxsize=64)  # weights of one shape share it; 64 shapes are more than a model has
def entries(numel: int, count: int, offset: int, mode: str, seed: int, device: torch.device) -> torch.Tensor:
    """Flat indices of ``count`` values from ``offset`` on, around the end: neighbours, or in a random order of all."""
    places = (torch.arange(count) + offset) % numel
    if mode == "scatter":
        places = torch.randperm(numel, generator=torch.Generator().manual_seed(seed))[places]
    return places.to(device)
