"""The check of ``ftk verify``: equation 1 of arXiv:2203.02155, pair by pair, with the head's product written out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ftk_training.by_hand import Hand, compared, side

if TYPE_CHECKING:
    from ftk_training.checks import Bench, Outcome

HEAD = ("v_head.summary.weight", "v_head.summary.bias")


def loss_by_hand(bench: Bench) -> Outcome:
    return compared(bench, _formula, value_head_dropout=0.0)


def _formula(hand: Hand) -> float:
    def reward(text: Mapping[str, Any]) -> float:
        hidden_TH, weights = hand.policy.hidden(text, HEAD)
        (weight_H,), bias = (weights[name].float() for name in HEAD)
        return float((hidden_TH[-1] * weight_H).sum() + bias[0])

    margins = [reward(side(row, "chosen_")) - reward(side(row, "rejected_")) for row in hand.rows]
    return sum(math.log1p(math.exp(-one)) for one in margins) / len(margins)
