"""In which order rows are trained: a function of seed and epoch alone, so that a resumed run takes the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

from ftk_training.quick_imports import quick_imports

with quick_imports():
    from transformers.trainer_pt_utils import get_length_grouped_indices


class EpochOrder(Sampler[int]):
    """A new order of ``size`` rows for each epoch.

    transformers shuffles by seed and epoch, too, but groups by length with the global random state, which differs
    after a resume; and of several processes it does not reach the sampler of a resumed epoch. Here both are right.

    lengths: rows of like length come together, in groups of ``batch_size``; None shuffles.
    """

    def __init__(self, size: int, seed: int, *, lengths: Sequence[int] | None = None, batch_size: int = 1) -> None:
        self.size, self.seed, self.epoch = size, seed, 0
        self.lengths, self.batch_size = lengths, batch_size

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        if self.lengths is None:
            return iter(torch.randperm(self.size, generator=generator).tolist())
        return iter(get_length_grouped_indices(self.lengths, self.batch_size, generator=generator))
