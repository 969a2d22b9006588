"""For the checks of losses of tokens: the mean of a formula over the trained tokens of single texts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ftk_training.by_hand import Hand, compared, weights

if TYPE_CHECKING:
    from ftk.run import Run
    from ftk_training.checks import Bench, Outcome

Formula = Callable[["Run", Any, int, Any], float]
"""``formula(run, log p of every word (V,), the word that comes, the reference's log p (V,) or None) -> loss``."""


def of_tokens(bench: Bench, formula: Formula, *, reference: bool = False) -> Outcome:
    """The run's loss, and that of a formula."""

    def by_hand(hand: Hand) -> float:
        total, count = 0.0, 0
        for row in hand.rows:
            logits_NV, tokens_N = hand.policy.logits(row)
            others = hand.reference.logits(row)[0].log_softmax(-1) if reference else [None] * len(tokens_N)
            columns = zip(logits_NV.log_softmax(-1), tokens_N.tolist(), others, weights(row).tolist(), strict=True)
            total += sum(weight * formula(hand.run, words_V, token, other) for words_V, token, other, weight in columns)
            count += len(tokens_N)
        return total / count

    return compared(bench, by_hand, least=1e-9)
