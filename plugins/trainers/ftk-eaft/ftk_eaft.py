"""EAFT: tokens about which the model is certain teach less (Diao et al. 2026, arXiv:2601.02151)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import ftk
from ftk_sft import SftLoss
from ftk_training import Check

if TYPE_CHECKING:
    from ftk.run import Run
    from ftk_training.checks import Bench, Outcome

TOP, SCALE = 20, 3.0
"""Of so many most likely tokens the entropy is taken; their highest is log 20, about 3."""


@ftk.options
class EaftOptions:
    """Whether it is used, and how strongly."""

    use_eaft_loss: bool = ftk.option(
        False, help="Entropy-adaptive fine-tuning: each token's cross-entropy times the model's uncertainty there."
    )
    eaft_alpha: float = ftk.option(1.0, help="Exponent of the uncertainty; 0 is the plain cross-entropy.", minimum=0)


@ftk.hookimpl
def ftk_sft_losses() -> Iterator[SftLoss]:
    yield SftLoss(
        "eaft",
        target="ftk_eaft:build",
        options=EaftOptions,
        switch="use_eaft_loss",
        excludes=("label_smoothing_factor>0",),
        summary="EAFT: cross-entropy times the model's uncertainty",
    )


@ftk.hookimpl
def ftk_checks() -> Iterator[Check]:
    yield Check(
        "eaft-loss",
        target="ftk_eaft:loss_by_hand",
        needs=("sft_loss:eaft",),
        summary="The loss of tokens is the formula of the paper",
        mend="A patch or a plugin changes the loss. Take out those that ftk run --dry-run lists, one by one",
    )


def build(run: Run) -> Any:
    """The formula with the run's exponent."""
    alpha = run.options(EaftOptions).eaft_alpha

    def losses(logits_NV: Any, labels_N: Any) -> tuple[Any, dict[str, Any]]:
        """(N,) cross-entropy times (entropy / 3) ** alpha, through which nothing learns, and (N,) the entropies."""
        from torch.nn.functional import cross_entropy

        entropy_N = entropy_of_top(logits_NV.detach())
        weight_N = (entropy_N / SCALE) ** alpha
        return cross_entropy(logits_NV, labels_N, reduction="none") * weight_N, {"entropy": entropy_N}

    return losses


def entropy_of_top(logits_NV: Any) -> Any:
    """(N,) natural entropy of the most likely tokens, their probabilities made to sum to 1."""
    top_NK = logits_NV.topk(min(TOP, logits_NV.shape[-1]), dim=-1).values.log_softmax(-1)
    return -(top_NK.exp() * top_NK).sum(-1)


def loss_by_hand(bench: Bench) -> Outcome:
    """The formula, number by number."""
    import math

    from ftk_sft.checking import of_tokens

    def formula(run: Run, words_V: Any, token: int, other_V: Any) -> float:
        best = sorted((math.exp(one) for one in words_V.tolist()), reverse=True)[:20]
        shares = [one / sum(best) for one in best]
        entropy = -sum(one * math.log(one) for one in shares if one > 0)
        return -float(words_V[token]) * (entropy / 3) ** run.value("eaft_alpha")

    return of_tokens(bench, formula)
