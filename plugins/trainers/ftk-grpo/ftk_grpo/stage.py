"""Stage grpo: what each answer is worth within its group, and the loss.

Shapes: R answers, N tokens of all answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from ftk import ConfigError, Metrics
from ftk_rewards.judging import Judges
from ftk_training import logprobs, rhythm
from ftk_training.fitting import fit
from ftk_training.logprobs import LogProbs
from ftk_training.reference import Reference, reference_of
from ftk_training.rolled import Rolled
from ftk_training.rollouts import ROLLOUT, Rollouts

from ftk_grpo import GrpoOptions, losses

if TYPE_CHECKING:
    from ftk.run import Run
    from ftk_training.trainer import Batch
    from torch import nn
    from transformers import TrainingArguments


def train(run: Run) -> Metrics:
    """Train, as the trainer of the plan. Raises FtkError for what the user can mend."""
    judges = Judges(run)
    stage = Grpo(run, judges)
    options = run.options(GrpoOptions)
    group = options.num_generations_eval or options.num_generations
    loop = Rollouts(run, stage, judges.judge, group=group)
    return fit(run, collate=rhythm.collate, loss=stage.loss, count=stage.count, loop=loop)


class Grpo:
    """A :class:`ftk_training.rollouts.Stage`."""

    def __init__(self, run: Run, judges: Judges) -> None:
        self.run, self.judges, self.options = run, judges, run.options(GrpoOptions)
        self.reference: Reference | None = None
        self.longest = int(run.value("max_new_tokens"))
        high = self.options.epsilon_high
        self.high = self.options.epsilon if high is None else high
        scale = self.options.scale_rewards
        self.scale = {True: "group", False: "none"}.get(scale, scale) if isinstance(scale, bool) else scale

    def rhythm(self, arguments: TrainingArguments, num_prompts: int) -> rhythm.Rhythm:
        options, plan = self.options, self.run.plan
        accumulated = arguments.gradient_accumulation_steps
        batches = options.steps_per_generation or accumulated
        if batches % accumulated:
            raise ConfigError(
                f"{plan.where('steps_per_generation')}: must be a multiple of gradient_accumulation_steps, which is "
                f"{accumulated}"
            )
        rows, processes = arguments.per_device_train_batch_size, arguments.world_size
        if (rows * batches * processes) % options.num_generations:
            raise ConfigError(
                f"{plan.where('num_generations')}: {rows * batches * processes} answers are made at once "
                f"({rows} a forward pass, {batches} passes, {processes} processes), which are no whole groups. Set "
                f"per_device_train_batch_size: {options.num_generations}, or another gradient_accumulation_steps"
            )
        shuffled, seed = rhythm.order_of(self.run)
        made = rhythm.Rhythm(
            num_prompts=num_prompts,
            rows=rows,
            batches=batches,
            group=options.num_generations,
            passes=options.num_iterations,
            seed=seed,
            shuffled=shuffled,
            num_processes=processes,
            process=arguments.process_index,
        )
        self.is_fresh = made.passes * batches == accumulated
        return made

    def begin(self, rollouts: Rollouts) -> None:
        self.judges.begin(rollouts.trainer)
        self.heat = rollouts.sampling.temperature
        if self.options.beta:
            self.reference = reference_of(rollouts.trainer)

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """There is nothing: weights and answers are all of it."""

    # Answers

    def worth(self, rollouts: Rollouts, rolled: Rolled, *, evaluating: bool) -> dict[str, Any]:
        group = rollouts.group if evaluating else self.options.num_generations
        all_R = rolled.rewards if evaluating else rollouts.gathered(rolled.rewards)
        found_R, stds_G = losses.advantages(all_R, group, self.scale)
        if not evaluating and rollouts.trainer.args.world_size > 1:
            found_R = found_R[torch.tensor(rollouts.rhythm.own())]
        if self.options.mask_truncated_completions:
            rolled.trained = list(rolled.finished)
        rolled.values["advantages"] = [
            torch.full((len(ids),), float(one)) for ids, one in zip(rolled.answer_ids, found_R, strict=True)
        ]
        if not (evaluating or self.is_fresh):
            rolled.values["old"] = self._log_probs(rollouts, rolled, rollouts.model)
        if self.reference is not None:
            with self.reference.model(rollouts.model) as model:
                rolled.values["reference"] = self._log_probs(rollouts, rolled, model)
        flat = (stds_G < 1e-8).sum()
        return {"reward_std": (stds_G.sum(), len(stds_G)), "frac_reward_zero_std": (flat, len(stds_G))}

    def _log_probs(self, rollouts: Rollouts, rolled: Rolled, model: Any) -> list[torch.Tensor]:
        """For each answer, of its tokens; nothing is known of those that are not trained."""
        made: list[torch.Tensor] = []
        for numbers, batch in rollouts.passes(rolled):
            lengths = [len(rolled.answer_ids[number]) * rolled.trained[number] for number in numbers]
            found_N = logprobs.log_probs(model, batch, temperature=self.heat).tokens_N.cpu()
            made += [
                part if rolled.trained[number] else torch.zeros(len(rolled.answer_ids[number]))
                for number, part in zip(numbers, found_N.split(lengths), strict=True)
            ]
        return made

    # Loss

    def count(self, batch: Batch) -> torch.Tensor | int:
        """Tokens or answers, whatever the loss is a mean over."""
        if self.options.loss_type in losses.OVER_TOKENS:
            return (batch["labels"][:, 1:] != -100).sum()
        return len(batch["labels"])

    def loss(self, model: nn.Module, batch: Batch) -> tuple[torch.Tensor, dict[str, Any]]:
        """The sum over the items of :meth:`count`."""
        known: Mapping[str, torch.Tensor] = batch[ROLLOUT]  # type: ignore[assignment]
        found = logprobs.log_probs(
            model, {key: one for key, one in batch.items() if key != ROLLOUT}, temperature=self.heat
        )
        return self.total(found, known)

    def total(self, found: LogProbs, known: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, Any]]:
        """The same from log-probabilities and what is known of the tokens."""
        options, log_probs_N = self.options, found.tokens_N
        advantages_N = known["advantages"]
        log_ratios_N = log_probs_N - known.get("old", log_probs_N.detach())
        ratios_N = log_ratios_N.exp()
        if options.importance_sampling_level == "sequence":
            ratios_N = losses.answer_ratios(log_ratios_N, found.texts_N, found.total)
        if options.loss_type == "cispo":
            losses_N = losses.weighted(ratios_N, advantages_N, log_probs_N, self.high)
        elif options.loss_type == "sapo":
            heats = options.sapo_temperature_pos, options.sapo_temperature_neg
            losses_N = losses.softened(ratios_N, advantages_N, *heats)
        else:
            losses_N = losses.clipped(ratios_N, advantages_N, options.epsilon, self.high, options.delta)
        num_tokens = len(log_probs_N)
        clipped_N = losses.is_clipped(ratios_N.detach(), advantages_N, options.epsilon, self.high)
        metrics: dict[str, Any] = {"clip_fraction": (clipped_N.sum(), num_tokens)}
        if "reference" in known:
            kl_N = losses.divergence(log_probs_N, known["reference"])
            metrics["kl"] = (kl_N.detach().sum(), num_tokens)
            losses_N = losses_N + options.beta * (kl_N * ratios_N if options.use_bias_correction_kl else kl_N)
        lengths_N = found.counts_R.clamp(min=1)[found.texts_N]
        return (losses_N * losses.WEIGHTS[options.loss_type](lengths_N, self.longest)).sum(), metrics
