"""Batches of pairs: both texts of each, as rows of the run's collator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from ftk_training.collator import Collator, joined

Row = Mapping[str, Any]
SIDES = ("chosen_", "rejected_")
ENDS = tuple(f"{side}ends" for side in SIDES)


class Pairs:
    """Turns rows of pairs, packed ones too (``ftk_data.sequences.PackedPairRows``), into a batch of their texts.

    collator: pads them, or joins them to one row (``flat``), and reads what they show.
    """

    def __init__(self, collator: Collator) -> None:
        self.collator = collator

    def __call__(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """The collator's batch without labels, with ``chosen_ends`` and ``rejected_ends`` (P, 2): the row and the
        position of the last token of both texts of each pair.
        """
        groups = [group for row in rows for group in _groups(row)]
        batch = self.collator([texts[0] if len(texts) == 1 else joined(texts) for texts in groups])
        ends = list(_ends(groups, flat=self.collator.flat))
        made = {name: one for name, one in batch.items() if name not in ("labels", "loss_weights")}
        for number, name in enumerate(ENDS):
            made[name] = torch.tensor([end for side in ends[number::2] for end in side])
        return made


def _groups(row: Row) -> Iterator[list[Row]]:
    """The chosen texts of a row, and the rejected ones: each is to be a row of the batch."""
    for side in SIDES:
        yield [_of(pair, side) for pair in row.get("pairs", (row,))]


def _of(pair: Row, side: str) -> Row:
    return {key.removeprefix(side): one for key, one in pair.items() if key.startswith(side)}


def _ends(groups: Sequence[Sequence[Row]], *, flat: bool) -> Iterator[list[tuple[int, int]]]:
    """For each group, the row and the position of the last token of each of its texts."""
    before = 0
    for number, texts in enumerate(groups):
        lasts = np.cumsum([len(text["input_ids"]) for text in texts]) - 1
        yield [(0, before + int(last)) if flat else (number, int(last)) for last in lasts]
        before += int(lasts[-1]) + 1
