"""ASFT: DFT, held to the model from before by a divergence (Zhu et al. 2025, arXiv:2509.23753)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import ftk
from ftk_sft import SftLoss
from ftk_training import Check
from ftk_training.preference_options import ReferenceOptions

if TYPE_CHECKING:
    from ftk.run import Run
    from ftk_training.checks import Bench, Outcome


@ftk.options
class AsftOptions:
    """Whether it is used, and how tightly it holds."""

    use_asft_loss: bool = ftk.option(
        False, help="Anchored fine-tuning: DFT plus the divergence from the reference model."
    )
    asft_alpha: float = ftk.option(0.1, help="Weight of the divergence; 0 is DFT.", minimum=0)


@ftk.hookimpl
def ftk_sft_losses() -> Iterator[SftLoss]:
    yield SftLoss(
        "asft",
        target="ftk_asft:build",
        options=(AsftOptions, ReferenceOptions),
        switch="use_asft_loss",
        reference=True,
        excludes=("label_smoothing_factor>0",),
        summary="ASFT: DFT with an anchor in the reference model",
    )


@ftk.hookimpl
def ftk_checks() -> Iterator[Check]:
    yield Check(
        "asft-loss",
        target="ftk_asft:loss_by_hand",
        needs=("sft_loss:asft",),
        summary="The loss of tokens is the formula of the paper",
        mend="A patch or a plugin changes the loss. Take out those that ftk run --dry-run lists, one by one",
    )


def build(run: Run) -> Any:
    """The formula with the run's weight."""
    alpha = run.options(AsftOptions).asft_alpha

    def losses(logits_NV: Any, labels_N: Any, reference_NV: Any) -> tuple[Any, dict[str, Any]]:
        """(N,) -p log p, p learning nothing, plus alpha * KL(reference || policy); and (N,) the divergences."""
        from torch.nn.functional import cross_entropy, kl_div

        surprise_N = cross_entropy(logits_NV, labels_N, reduction="none")
        anchored_N = kl_div(
            logits_NV.log_softmax(-1), reference_NV.log_softmax(-1), reduction="none", log_target=True
        ).sum(-1)
        dft_N = surprise_N * (-surprise_N.detach()).exp()
        return dft_N + alpha * anchored_N, {"divergence": anchored_N}

    return losses


def loss_by_hand(bench: Bench) -> Outcome:
    """The formula, number by number."""
    import math

    from ftk_sft.checking import of_tokens

    def formula(run: Run, words_V: Any, token: int, other_V: Any) -> float:
        probability = math.exp(words_V[token])
        divergence = sum(math.exp(q) * (q - p) for q, p in zip(other_V.tolist(), words_V.tolist(), strict=True))
        return -probability * math.log(probability) + run.value("asft_alpha") * divergence

    return of_tokens(bench, formula, reference=True)
