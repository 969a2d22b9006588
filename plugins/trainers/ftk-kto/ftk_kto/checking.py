"""The check of ``ftk verify``: equations 7 and 8 of arXiv:2402.01306, answer by answer, on single texts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ftk_training.by_hand import Hand, compared, side

if TYPE_CHECKING:
    from ftk_training.checks import Bench, Outcome


def loss_by_hand(bench: Bench) -> Outcome:
    return compared(bench, _formula)


def _formula(hand: Hand) -> float:
    def ratios(texts: list[dict[str, object]]) -> list[float]:
        return [hand.policy.total(text) - hand.reference.total(text) for text in texts]

    beta, ftx = hand.run.value("pref_beta"), hand.run.value("pref_ftx")
    others = ratios([side(row, "kl_") for row in hand.rows])
    moved = max(0.0, sum(others) / len(others))
    total = 0.0
    for row, ratio in zip(hand.rows, ratios([dict(row) for row in hand.rows]), strict=True):
        gain = ratio - moved if row["desirable"] else moved - ratio
        weight = hand.run.value("kto_chosen_weight" if row["desirable"] else "kto_rejected_weight")
        total += weight * (1 - 1 / (1 + math.exp(-beta * gain)))
    liked = [row for row in hand.rows if row["desirable"]]
    if ftx and liked:
        total -= len(hand.rows) * ftx * sum(float(hand.policy.log_probs(row).mean()) for row in liked) / len(liked)
    return total / len(hand.rows)
