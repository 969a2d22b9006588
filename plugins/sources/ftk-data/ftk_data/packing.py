"""Packing: several rows in one of ``cutoff_len`` tokens, so that little of a batch is padding."""

from __future__ import annotations

from collections.abc import Sequence


def packs(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Which rows go together: best fit, longest first (Ding et al. 2024, arXiv:2404.10830, section 3).

    Every length must be at most ``capacity``. Returns lists of row numbers, ascending inside and by their first. The
    free space of open packs is one bit each in an integer, so that the tightest fit is found in a few machine words.
    """
    free = 0
    open_packs: list[list[list[int]]] = [[] for _ in range(capacity + 1)]
    done: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        length = lengths[row]
        fitting = free >> length
        if fitting:
            space = length + (fitting & -fitting).bit_length() - 1
            pack = open_packs[space].pop()
            if not open_packs[space]:
                free &= ~(1 << space)
        else:
            space, pack = capacity, []
            done.append(pack)
        pack.append(row)
        left = space - length
        if left:
            open_packs[left].append(pack)
            free |= 1 << left
    for pack in done:
        pack.sort()
    return sorted(done)
