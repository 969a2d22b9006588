"""The stage: with the model's own loss, or with the one of a plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from ftk_training.fitting import fit

if TYPE_CHECKING:
    from ftk import Metrics
    from ftk.run import Run

    from ftk_sft import SftLoss


def train(run: Run) -> Metrics:
    """Train and evaluate; see :func:`ftk_training.fitting.fit`."""
    spec = cast("SftLoss | None", run.plan.one("sft_loss"))
    if spec is None:
        return fit(run)
    from ftk_sft.token_losses import TokenLosses, count_tokens

    return fit(run, loss=TokenLosses(run, spec), count=count_tokens)
