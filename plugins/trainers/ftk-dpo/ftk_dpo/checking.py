"""The check of ``ftk verify`` for losses of pairs: formulas of the papers, number by number, on single texts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ftk_training.by_hand import Asked, Hand, compared, side, weights
from ftk_training.checks import NotApplicable
from ftk_training.preference_options import PreferenceOptions

from ftk_dpo import BcoOptions, DpoOptions

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ftk.run import Run
    from ftk_training.checks import Bench, Outcome


class Scored(NamedTuple):
    """log π of both answers of a pair, sums or means over tokens, and the reference's: 0 for a loss without one."""

    chosen: float
    rejected: float
    ref_chosen: float
    ref_rejected: float

    @property
    def ratios(self) -> tuple[float, float]:
        return self.chosen - self.ref_chosen, self.rejected - self.ref_rejected


Formula = Callable[["Run", Sequence[Scored]], list[float]]
"""``formula(run, all pairs of a step) -> the loss of each``."""


def loss_by_hand(bench: Bench) -> Outcome:
    """The losses that this plugin declares; others have checks of their plugins."""
    name = bench.plan.value("pref_loss")
    if name not in FORMULAS:
        raise NotApplicable(f"the formula of {name} is in its own plugin")
    return of_pairs(bench, FORMULAS[name], averaged=name == "ipo")


def of_pairs(bench: Bench, formula: Formula, *, averaged: bool = False, reference: bool = True) -> Outcome:
    """The run's loss, and the mean of a formula over pairs, with the terms that any loss of pairs may have beside it.

    averaged, reference: as in :class:`ftk_dpo.PreferenceLoss`.
    """

    def by_hand(hand: Hand) -> float:
        pairs = [(side(row, "chosen_"), side(row, "rejected_")) for row in hand.rows]
        scored = [_scored(hand, hand.policy, pair, averaged, reference) for pair in pairs]
        losses = formula(hand.run, scored)
        if reference and (share := hand.run.options(BcoOptions).pref_bco_weight):
            first = [_scored(hand, hand.start, pair, averaged, reference) for pair in pairs]
            losses = _with_bco(losses, share, hand.run.options(PreferenceOptions).pref_beta, scored, first)
        loss = sum(losses) / len(losses)
        if ftx := hand.run.options(PreferenceOptions).pref_ftx:
            loss -= ftx * sum(float(hand.policy.log_probs(chosen).mean()) for chosen, _ in pairs) / len(pairs)
        return loss

    return compared(bench, by_hand)


def _scored(hand: Hand, policy: Asked, pair: tuple[Mapping[str, Any], ...], averaged: bool, reference: bool) -> Scored:
    alpha = hand.run.options(DpoOptions).ld_alpha
    shorter = min(len(weights(text)) for text in pair)

    def number(asked: Asked, text: Mapping[str, Any]) -> float:
        found = [float(one) for one in asked.log_probs(text) * weights(text)]
        if alpha is not None:  # LD-DPO, arXiv:2409.06411, eq. 10
            found = found[:shorter] + [alpha * one for one in found[shorter:]]
        return sum(found) / (len(found) if averaged else 1)

    own = [number(policy, text) for text in pair]
    return Scored(*own, *([number(hand.reference, text) for text in pair] if reference else (0.0, 0.0)))


def log_sigmoid(number: float) -> float:
    """log σ without overflow."""
    return -math.log1p(math.exp(-number)) if number > 0 else number - math.log1p(math.exp(number))


def _with_bco(
    losses: list[float], share: float, beta: float, scored: Sequence[Scored], first: Sequence[Scored]
) -> list[float]:
    """BCO (arXiv:2404.04656, eq. 7), with the mean reward of the step before as baseline; a weighted mean of both."""
    rewards = [beta * ratio for one in first for ratio in one.ratios]
    baseline = sum(rewards) / len(rewards)
    terms = [
        -log_sigmoid(beta * chosen - baseline) - log_sigmoid(baseline - beta * rejected)
        for chosen, rejected in (one.ratios for one in scored)
    ]
    return [(loss + share * term) / (1 + share) for loss, term in zip(losses, terms, strict=True)]


def _margins(run: Run, pairs: Sequence[Scored]) -> list[float]:
    return [chosen - rejected for chosen, rejected in (one.ratios for one in pairs)]


def _sigmoid(run: Run, pairs: Sequence[Scored]) -> list[float]:
    """arXiv:2305.18290, eq. 7; with ε, cDPO."""
    beta, swapped = run.value("pref_beta"), run.value("dpo_label_smoothing")
    return [
        -(1 - swapped) * log_sigmoid(beta * one) - swapped * log_sigmoid(-beta * one) for one in _margins(run, pairs)
    ]


def _hinge(run: Run, pairs: Sequence[Scored]) -> list[float]:
    """arXiv:2305.10425, eq. 1."""
    return [max(0.0, 1 - run.value("pref_beta") * one) for one in _margins(run, pairs)]


def _ipo(run: Run, pairs: Sequence[Scored]) -> list[float]:
    """arXiv:2310.12036, eq. 17."""
    return [(one - 1 / (2 * run.value("pref_beta"))) ** 2 for one in _margins(run, pairs)]


def _kto_pair(run: Run, pairs: Sequence[Scored]) -> list[float]:
    """arXiv:2402.01306, eq. 7 and 8; z0 of each side is the mean of the other side's ratios."""
    beta, ratios = run.value("pref_beta"), [one.ratios for one in pairs]
    of_chosen, of_rejected = (max(0.0, sum(column) / len(column)) for column in zip(*ratios, strict=True))
    return [
        1 - math.exp(log_sigmoid(beta * (w - of_rejected))) / 2 - math.exp(log_sigmoid(beta * (of_chosen - r))) / 2
        for w, r in ratios
    ]


FORMULAS: dict[str, Formula] = {"sigmoid": _sigmoid, "hinge": _hinge, "ipo": _ipo, "kto_pair": _kto_pair}
