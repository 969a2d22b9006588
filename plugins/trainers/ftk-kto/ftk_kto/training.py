"""The stage: log-probabilities of policy and reference → loss of each answer.

z0, the estimate of how far the policy has moved, is one number for a whole optimizer step: the mean over the mismatched
pairs of all its rows, on all devices and in all accumulated batches, by the policy as it is before the step. So 8 rows
are 4 x 2 and 8 x 1, and a batch of one row is as good as any. In an evaluation it is the mean over all of its rows.
A mismatched pair is a prompt with the answer of the row before it (:class:`ftk_data.sequences.FeedbackRows`).

Items are answers. Shapes: R answers, N trained tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from ftk import ConfigError, Metrics
from ftk_training.fitting import fit
from ftk_training.logprobs import LogProbs, model_inputs, target_log_probs, targets_of
from ftk_training.preference_options import PrecomputeOptions, PreferenceOptions
from ftk_training.quiet import quiet
from ftk_training.reference import Reference, reference_of
from ftk_training.reference_cache import remembered

from ftk_kto import KtoOptions
from ftk_kto.batches import OWN, Feedback, keys_of, mismatched_part, num_rows, without_mismatched
from ftk_kto.losses import Weighting, drift, kto_losses

if TYPE_CHECKING:
    from pathlib import Path

    from ftk.run import Run
    from ftk_training.trainer import Batch, ExactTrainer
    from transformers import TrainingArguments


def train(run: Run) -> Metrics:
    """Train and evaluate; see :func:`ftk_training.fitting.fit`."""
    stage = Kto(run)
    return fit(run, loss=stage, count=num_rows, loop=stage)


class Kto:
    """The loss of a batch of feedback, and the stage's part in the loop (:class:`ftk_training.loops.Loop`)."""

    def __init__(self, run: Run) -> None:
        own, shared = run.options(KtoOptions), run.options(PreferenceOptions)
        self.run, self.ftx = run, shared.pref_ftx
        self.how = Weighting(shared.pref_beta, own.kto_chosen_weight, own.kto_rejected_weight)
        self.reference: Reference | None = None
        self.of_evaluation: dict[str, torch.Tensor] = {}

    def rows(self, arguments: TrainingArguments, train: Any, evaluation: Any) -> tuple[Any, Any]:
        """The run's rows as they are."""
        return train, evaluation

    def begin(self, trainer: ExactTrainer) -> None:
        """Raises ConfigError where torch would split a batch over the GPUs of one process."""
        if trainer.args.n_gpu > 1:
            raise ConfigError(
                f"{self.run.plan.config}: stage kto cannot split a batch over the GPUs of one process. Start one for "
                "each GPU (torchrun), or show it one (CUDA_VISIBLE_DEVICES=0)"
            )
        self.trainer = trainer
        precomputed = self.run.options(PrecomputeOptions).precompute_ref_log_probs
        self.reference = reference_of(trainer, at_start=precomputed)
        collator = Feedback(trainer.data_collator)
        if precomputed:
            collator = replace(collator, known=remembered(trainer, self.reference, collator, keys_of, _both))
            self.reference = None
        trainer.data_collator = collator

    # What is of all batches

    def step(self, batches: Sequence[Batch]) -> list[Batch]:
        """The batches of a step, each with z0 (``kl``) and, as ``ftx_scale``, the number of rows to a liked one."""
        batches = [self.trainer._prepare_inputs(batch) for batch in batches]
        of_all = self._of_all(batches)
        return [{**without_mismatched(batch), **of_all} for batch in batches]

    def evaluation_begins(self, batches: Iterable[Batch]) -> None:
        """The same for the rows that are about to be evaluated."""
        self.of_evaluation = self._of_all(self.trainer._prepare_inputs(batch) for batch in batches)

    def evaluation(self, batch: Batch) -> tuple[Batch, Mapping[str, Any]]:
        return {**without_mismatched(batch), **self.of_evaluation}, {}

    def _of_all(self, batches: Iterable[Batch]) -> dict[str, torch.Tensor]:
        sums = torch.zeros(3, device=self.trainer.args.device, dtype=torch.float64)
        for batch in batches:
            liked, count = batch["desirable"].sum(), num_rows(batch)
            sums += torch.stack([self._mismatched(batch).double(), liked.double(), liked.new_tensor(count).double()])
        if self.trainer.args.world_size > 1:
            sums = self.trainer.accelerator.gather(sums[None]).sum(dim=0)
        mismatched, liked, count = sums
        return {"kl": drift(mismatched, count).float(), "ftx_scale": (count / liked.clamp(min=1)).float()}

    def _mismatched(self, batch: Batch) -> torch.Tensor:
        """The sum of r over the mismatched pairs of a batch, by the policy as it is."""
        model, part = self.trainer.model, mismatched_part(batch)
        with quiet(model), self.trainer.compute_loss_context_manager():
            policy_R = summed(_log_probs(model, part), part)
            return (policy_R - self._from_reference(model, part)).sum()

    def _from_reference(self, policy: Any, part: Batch) -> torch.Tensor:
        if "ref_sums" in part:
            return part["ref_sums"]
        assert self.reference is not None
        with self.reference.model(policy) as model:
            return summed(_log_probs(model, part), part)

    # The loss

    def __call__(self, model: Any, batch: Batch) -> tuple[torch.Tensor, dict[str, Any]]:
        """The sum of the losses of a batch, and of what is logged."""
        liked_R, policy = batch["desirable"], _log_probs(model, batch)
        sums_R = summed(policy, batch)
        ratios_R = sums_R - self._from_reference(model, batch)
        total = kto_losses(ratios_R, liked_R, batch["kl"], self.how).sum()
        if self.ftx:
            total = total - self.ftx * batch["ftx_scale"] * policy.means_R[liked_R].sum()
        if policy.balance is not None:
            total = total + len(liked_R) * policy.balance
        told: dict[str, Any] = {"kl": batch["kl"] * len(liked_R)}
        for name, of_R in (("chosen", liked_R), ("rejected", ~liked_R)):
            told[f"rewards/{name}"] = self.how.beta * ratios_R[of_R].detach().sum(), of_R.sum()
            told[f"logps/{name}"] = sums_R[of_R].detach().sum(), of_R.sum()
        told["rewards/margins"] = (*told["rewards/chosen"], *told["rewards/rejected"])
        return total, told

    # Checkpoints: nothing lasts from one step to the next

    def save(self, folder: Path) -> None: ...

    def restore(self, folder: Path) -> None: ...


def _log_probs(model: Any, part: Batch) -> LogProbs:
    inputs = {key: one for key, one in model_inputs(part).items() if key not in OWN}
    return target_log_probs(model, inputs, targets_of(part))


def _both(model: Any, batch: Batch) -> torch.Tensor:
    """(2 R,): what a model says of the answers of a batch, and then of the mismatched ones."""
    parts = (without_mismatched(batch), mismatched_part(batch))
    return torch.cat([summed(_log_probs(model, part), part) for part in parts])


def summed(found: LogProbs, part: Batch) -> torch.Tensor:
    """(R,): the log-probability of each answer, a token with a weight counted so much."""
    if "loss_weights" not in part:
        return found.sums_R
    targets = targets_of(part)
    return found.total(found.tokens_N * part["loss_weights"][targets.rows_N, targets.positions_N + 1])
