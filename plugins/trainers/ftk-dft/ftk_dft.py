"""DFT: the loss of a token weighs as much as the model believes in it (Wu et al. 2025, arXiv:2508.05629, eq. 9)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import ftk
from ftk_sft import SftLoss
from ftk_training import Check

if TYPE_CHECKING:
    from ftk.run import Run
    from ftk_training.checks import Bench, Outcome


@ftk.options
class DftOptions:
    """Whether it is used."""

    use_dft_loss: bool = ftk.option(
        False, help="Dynamic fine-tuning: each token's cross-entropy times its own probability, which learns nothing."
    )


@ftk.hookimpl
def ftk_sft_losses() -> Iterator[SftLoss]:
    yield SftLoss(
        "dft",
        target="ftk_dft:build",
        options=DftOptions,
        switch="use_dft_loss",
        excludes=("label_smoothing_factor>0",),
        summary="DFT: cross-entropy times the token's probability",
    )


@ftk.hookimpl
def ftk_checks() -> Iterator[Check]:
    yield Check(
        "dft-loss",
        target="ftk_dft:loss_by_hand",
        needs=("sft_loss:dft",),
        summary="The loss of tokens is the formula of the paper",
        mend="A patch or a plugin changes the loss. Take out those that ftk run --dry-run lists, one by one",
    )


def build(run: Run) -> Any:
    """The formula; it has no settings."""
    return losses


def losses(logits_NV: Any, labels_N: Any) -> tuple[Any, dict[str, Any]]:
    """(N,) -p log p with the gradient of -log p times p, and (N,) the probabilities p."""
    from torch.nn.functional import cross_entropy

    surprise_N = cross_entropy(logits_NV, labels_N, reduction="none")
    probability_N = (-surprise_N.detach()).exp()
    return surprise_N * probability_N, {"probability": probability_N}


def loss_by_hand(bench: Bench) -> Outcome:
    """The formula, number by number."""
    import math

    from ftk_sft.checking import of_tokens

    def formula(run: Run, words_V: Any, token: int, other_V: Any) -> float:
        probability = math.exp(words_V[token])
        return -probability * math.log(probability)

    return of_tokens(bench, formula)
