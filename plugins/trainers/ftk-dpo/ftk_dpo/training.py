"""The stage: log-probabilities of policy and reference → loss of each pair.

Items are pairs, so the loss of a step is the mean over its pairs however they came into batches. What a loss reads of
the whole step or of earlier ones (:class:`ftk_dpo.baselines.Baselines`) does not depend on batches either.

Shapes: P pairs, N trained tokens; of P pairs there are 2 P texts, the chosen ones first.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from ftk import ConfigError
from ftk_training.fitting import fit
from ftk_training.logprobs import LogProbs, target_log_probs
from ftk_training.pairs import PairCollator, num_pairs, pair_inputs, pair_targets, pairs_of, text_of
from ftk_training.preference_options import PrecomputeOptions, PreferenceOptions
from ftk_training.quiet import quiet
from ftk_training.reference import Reference, reference_of
from ftk_training.reference_cache import Known, key_of, remembered
from ftk_training.sharing import additive_of, why_not

from ftk_dpo import BcoOptions, DpoOptions, PreferenceLoss
from ftk_dpo.baselines import Baselines
from ftk_dpo.losses import bco
from ftk_dpo.scores import PairLoss, PairScores

if TYPE_CHECKING:
    from pathlib import Path

    from ftk import Metrics
    from ftk.run import Run
    from ftk_training.trainer import Batch, ExactTrainer
    from transformers import TrainingArguments

log = logging.getLogger("ftk.dpo")


def train(run: Run) -> Metrics:
    """Train and evaluate; see :func:`ftk_training.fitting.fit`."""
    stage = Preferences(run, cast("PreferenceLoss", run.plan.one("preference_loss")))
    return fit(run, loss=stage, count=num_pairs, loop=stage)


class Preferences:
    """The loss of a batch of pairs, and the stage's part in the loop (:class:`ftk_training.loops.Loop`)."""

    def __init__(self, run: Run, spec: PreferenceLoss) -> None:
        self.run, self.spec = run, spec
        self.options = run.options(DpoOptions)
        self.ftx = run.options(PreferenceOptions).pref_ftx
        self.bco_weight = run.options(BcoOptions).pref_bco_weight if spec.reference else 0.0
        self.of_pairs = spec.load()(run)
        self.baselines = Baselines()
        self.reference: Reference | None = None
        self.known: Known | None = None

    # Before the first step

    def rows(self, arguments: TrainingArguments, train: Any, evaluation: Any) -> tuple[Any, Any]:
        """The run's rows as they are."""
        return train, evaluation

    def begin(self, trainer: ExactTrainer) -> None:
        """Choose the layout of batches, and make the reference or what it says.

        Raises ConfigError where torch would split a batch over the GPUs of one process.
        """
        if trainer.args.n_gpu > 1:
            raise ConfigError(
                f"{self.run.plan.config}: pairs cannot be split over the GPUs of one process. Start one for each GPU "
                "(torchrun), or show it one (CUDA_VISIBLE_DEVICES=0)"
            )
        self.trainer = trainer
        self.baselines.accelerator = trainer.accelerator
        policy = trainer.accelerator.unwrap_model(trainer.model)
        precomputed = self.spec.reference and self.run.options(PrecomputeOptions).precompute_ref_log_probs
        if self.spec.reference:
            self.reference = reference_of(trainer, at_start=precomputed)
        collator = PairCollator(trainer.data_collator, shared=self._shares(trainer, policy))
        if precomputed and self.reference is not None:
            self.known = remembered(trainer, self.reference, collator, self._keys, self._reference_sums)
            self.reference = None
            collator = replace(collator, extra=Attached(self.known, self.options.ld_alpha))
        trainer.data_collator = collator

    def _shares(self, trainer: ExactTrainer, policy: Any) -> bool:
        asked = self.options.share_prompts
        if asked is False:
            return False
        models = [policy]
        if self.reference is not None and not self.reference.own:
            with self.reference.model(policy) as other:
                models.append(other)
        why = why_not(trainer, models, pays=asked is None)
        if why:
            say = log.info if asked is None else log.warning
            say("prompts are computed for each answer: %s", why)
        return not why

    def _keys(self, rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
        return keys_of([pair for pack in pairs_of(rows) for pair in pack], self.options.ld_alpha)

    # Batches

    def step(self, batches: Sequence[Batch]) -> list[Batch]:
        """The batches as they are, with what the loss reads of all of them."""
        batches = list(batches)
        self.baselines.step_begins()
        if self.spec.drift:
            asked = [self._with_reference(self.trainer._prepare_inputs(batch)) for batch in batches]
            sums = sum((self._ratios(batch) for batch in asked), torch.zeros(3, device=self.trainer.args.device))
            self.baselines.set_drift(sums)
            batches = asked
        return batches

    def _with_reference(self, batch: Batch) -> Batch:
        return batch if "ref_sums" in batch else {**batch, "ref_sums": self._from_reference(batch, self.trainer.model)}

    def _ratios(self, batch: Batch) -> torch.Tensor:
        """(3,): the policy's sums over the reference's, chosen and rejected, summed; and the number of pairs."""
        model = self.trainer.model
        with quiet(model), self.trainer.compute_loss_context_manager():
            ratios_R = self._weighted(self._log_probs(model, batch), batch) - batch["ref_sums"]
        chosen_P, rejected_P = ratios_R.chunk(2)
        return torch.stack([chosen_P.sum(), rejected_P.sum(), chosen_P.new_tensor(len(chosen_P))])

    def evaluation(self, batch: Batch) -> tuple[Batch, Mapping[str, Any]]:
        """The batch as it is; its drift is the last step's, or its own where nothing was trained."""
        if self.spec.drift and not self.baselines.has_drift:
            batch = self._with_reference(batch)
            sums = self._ratios(batch)
            batch = {**batch, "drift": sums[:2] / sums[2]}
        return batch, {}

    # The loss

    def __call__(self, model: Any, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The sum of the losses of a batch of pairs, and of what is logged."""
        policy = self._log_probs(model, batch)
        scores = self._scores(policy, batch, model)
        made = self.of_pairs(scores)
        losses_P, more = self._with_terms(made, policy)
        total = losses_P.sum()
        if policy.balance is not None:
            total = total + len(losses_P) * policy.balance
        return total, _metrics(made, scores) | {name: value.detach().sum() for name, value in more.items()}

    def _scores(self, policy: LogProbs, batch: Batch, model: Any) -> PairScores:
        sums_R = self._weighted(policy, batch)
        if self.spec.reference:
            ref_R = batch["ref_sums"] if "ref_sums" in batch else self._from_reference(batch, model)
        else:
            ref_R = torch.zeros_like(sums_R)
        if self.spec.averaged:
            counts_R = policy.counts_R.clamp(min=1)
            sums_R, ref_R = sums_R / counts_R, ref_R / counts_R
        drift = batch["drift"] if "drift" in batch else self.baselines.drift.to(sums_R.device)
        return PairScores(*sums_R.chunk(2), *ref_R.to(sums_R).chunk(2), drift)

    def _with_terms(self, made: PairLoss, policy: LogProbs) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The losses with the BCO term, as a weighted mean, and with the chosen answers' own loss, added."""
        losses_P, more = made.losses_P, dict(made.metrics)
        if self.bco_weight:
            if torch.is_grad_enabled():
                self.baselines.add(made.chosen_rewards_P, made.rejected_rewards_P)
            term_P = bco(made.chosen_rewards_P, made.rejected_rewards_P, self.baselines.mean_reward)
            losses_P = (losses_P + self.bco_weight * term_P) / (1 + self.bco_weight)
            more["bco_loss"] = term_P
        if self.ftx:
            term_P = -policy.means_R.chunk(2)[0]
            losses_P = losses_P + self.ftx * term_P
            more["sft_loss"] = term_P
        return losses_P, more

    def _log_probs(self, model: Any, batch: Batch) -> LogProbs:
        inner = self.trainer.accelerator.unwrap_model(model)
        return target_log_probs(model, pair_inputs(batch, additive=additive_of(inner)), pair_targets(batch))

    def _weighted(self, found: LogProbs, batch: Batch) -> torch.Tensor:
        """(2 P,): sums over tokens, each with its weight in the data and LD-DPO's."""
        tokens_N = found.tokens_N
        if "target_weights" in batch:
            tokens_N = tokens_N * batch["target_weights"]
        alpha = self.options.ld_alpha
        if alpha is not None:
            tokens_N = tokens_N * length_weights(found, alpha)
        return found.total(tokens_N)

    def _from_reference(self, batch: Batch, policy: Any) -> torch.Tensor:
        assert self.reference is not None
        with self.reference.model(policy) as model:
            return self._reference_sums(model, batch)

    def _reference_sums(self, model: Any, batch: Batch) -> torch.Tensor:
        return self._weighted(self._log_probs(model, batch), batch)

    # Checkpoints

    def save(self, folder: Path) -> None:
        self.baselines.save(folder, first=self.trainer.args.should_save)

    def restore(self, folder: Path) -> None:
        self.baselines.restore(folder)


def length_weights(found: LogProbs, alpha: float) -> torch.Tensor:
    """LD-DPO (arXiv:2409.06411, eq. 10 and 11): α for tokens beyond the length of the shorter answer of a pair, else 1.

    The same weights for the reference, so that an untrained policy has no margin.
    """
    shorter_R = torch.minimum(*found.counts_R.chunk(2)).repeat(2)
    beyond_N = found.ranks_N >= shorter_R[found.texts_N]
    return torch.where(beyond_N, alpha, 1.0)


def keys_of(pairs: Sequence[Mapping[str, Any]], ld_alpha: float | None) -> np.ndarray:
    """(2 P,): what the reference's sums are kept under; with LD-DPO they depend on the other answer's length, too."""
    keys = [[0] * len(pairs), [0] * len(pairs)]
    for number, pair in enumerate(pairs):
        texts = [text_of(pair, side) for side in ("chosen", "rejected")]
        shorter = min(int((text.labels_T[1:] != -100).sum()) for text in texts)
        more = () if ld_alpha is None else (ld_alpha, shorter)
        for side, text in enumerate(texts):
            keys[side][number] = key_of(text, *more)
    return np.array([*keys[0], *keys[1]], np.int64)


class Attached:
    """Puts what the reference has said of its pairs into a batch, as ``ref_sums`` (2 P,)."""

    def __init__(self, known: Known, ld_alpha: float | None) -> None:
        self.known, self.ld_alpha = known, ld_alpha

    def __call__(self, pairs: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        return {"ref_sums": self.known.find(keys_of(pairs, self.ld_alpha))}


def _metrics(made: PairLoss, scores: PairScores) -> dict[str, torch.Tensor]:
    """What is logged, as sums over pairs."""
    chosen_P, rejected_P = made.chosen_rewards_P.detach(), made.rejected_rewards_P.detach()
    return {
        "rewards/chosen": chosen_P.sum(),
        "rewards/rejected": rejected_P.sum(),
        "rewards/accuracies": (chosen_P > rejected_P).float().sum(),
        "rewards/margins": (chosen_P - rejected_P).sum(),
        "logps/chosen": scores.chosen_P.detach().sum(),
        "logps/rejected": scores.rejected_P.detach().sum(),
    }
