"""Which rows come when: mixing data sets, and setting some aside for evaluation. Seeded, so a run can be repeated."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import count
from typing import TYPE_CHECKING

import numpy as np
from ftk import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ftk_data.options import DataOptions


def mixed(sizes: Sequence[int], options: DataOptions, seed: int) -> NDArray[np.int64]:
    """The order of the rows of several data sets, which stand one after the other with these sizes.

    Raises ConfigError when ``interleave_probs`` has not one number for each data set.
    """
    if options.mix_strategy == "concat" or len(sizes) < 2:
        return np.arange(sum(sizes))
    shares = options.shares
    if shares is not None and len(shares) != len(sizes):
        raise ConfigError(f"interleave_probs: has {len(shares)} numbers for {len(sizes)} data sets")
    offsets = np.concatenate((np.zeros(1, np.int64), np.cumsum(np.array(sizes, np.int64))))
    return np.array(_interleaved(sizes, shares, options.mix_strategy, offsets, seed), np.int64)


def _interleaved(
    sizes: Sequence[int], shares: Sequence[float] | None, strategy: str, offsets: NDArray[np.int64], seed: int
) -> list[int]:
    """Draw from the sets in turn, or by their shares; what ends it is the strategy's difference.

    In turn, the last round is finished, as the datasets library does.
    """
    turns = _turns(len(sizes), shares, seed)
    taken = [0] * len(sizes)
    drawn = [which for which in range(len(sizes)) if shares is None or shares[which]]
    used_up = {which for which in drawn if not sizes[which]}
    order: list[int] = []
    for turn in count():
        over = len(used_up) == len(drawn) or (strategy == "interleave_under" and used_up)
        if over and (shares is not None or turn % len(sizes) == 0 or strategy == "interleave_once"):
            break
        which = next(turns)
        if which not in drawn or not sizes[which] or (strategy == "interleave_once" and which in used_up):
            continue
        order.append(int(offsets[which]) + taken[which] % sizes[which])
        taken[which] += 1
        if taken[which] >= sizes[which]:
            used_up.add(which)
    return order


def _turns(num: int, shares: Sequence[float] | None, seed: int) -> Iterator[int]:
    if shares is None:
        while True:
            yield from range(num)
    random = np.random.default_rng(seed)
    chances = np.array(shares) / sum(shares)
    while True:
        yield from random.choice(num, size=1024, p=chances).tolist()


def split_off(
    order: NDArray[np.int64], examples_N: NDArray[np.int64], val_size: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The order of the rows without those of ``val_size`` examples, and those.

    Raises ConfigError when nothing would be left to train on.
    """
    examples = np.unique(examples_N[order])
    num = int(val_size) if val_size >= 1 else math.ceil(val_size * len(examples))
    if num >= len(examples):
        raise ConfigError(f"val_size: {val_size:g} of {len(examples)} examples leaves none to train on")
    chosen = np.random.default_rng(seed).permutation(examples)[:num]
    aside = np.isin(examples_N[order], chosen)
    return order[~aside], order[aside]
