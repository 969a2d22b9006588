"""Stage sft: learn the answers of conversations.

The loss is the mean cross-entropy of the trained tokens. The stage opens the kind ``sft_loss``, in which other losses
of tokens live (``ftk-dft``, ``ftk-eaft``, ``ftk-asft``): a plugin gives the formula, everything around it is here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import ftk
from ftk_data import DataOptions, TemplateOptions
from ftk_training import PredictionOptions, TrainingOptions

__all__ = ["SftLoss"]


@dataclass(frozen=True, eq=False, repr=False)
class SftLoss(ftk.Spec):
    """Another loss of tokens than their cross-entropy. Taken when its ``switch`` is on, at most one.

    target: ``build(run) -> loss``, and ``loss(logits_NV, labels_N) -> (losses_N, {metric: values_N})`` for N trained
        tokens, in float32. It is called with some of a batch's tokens at a time, and again on the way back, so it must
        be a function of its arguments alone. What weighs a token (``loss_weights``) is multiplied afterwards.
    reference: it is called with the logits of the reference model at the same places, too:
        ``loss(logits_NV, labels_N, reference_NV)``.
    """

    kind: ClassVar[str] = "sft_loss"
    reference: bool = False


@ftk.hookimpl
def ftk_kinds() -> Iterable[ftk.Kind]:
    yield ftk.Kind(SftLoss, "ftk_sft_losses", within="trainer:sft")


@ftk.hookimpl
def ftk_trainers() -> Iterable[ftk.Trainer]:
    yield ftk.Trainer(
        "sft",
        target="ftk_sft.training:train",
        rows="ftk_data.rows:build_chat",
        examples="chat",
        options=(DataOptions, TemplateOptions, TrainingOptions, PredictionOptions),
        uses_when={"engine": "predict_with_generate"},
        default=True,
        summary="Supervised fine-tuning: learn the answers of conversations",
    )
