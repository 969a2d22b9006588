"""Stage ppo: what each token of an answer is worth to the critic and the policy, and the loss.

Shapes: N tokens of all answers of a batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from ftk import Metrics, ModelError
from ftk_rewards.judging import Judges
from ftk_training import logprobs, rhythm, value_head
from ftk_training.fitting import fit
from ftk_training.reference import Reference, reference_of
from ftk_training.rolled import Rolled
from ftk_training.rollouts import ROLLOUT, Rollouts

from ftk_ppo import PpoOptions
from ftk_ppo.formulas import Controller, Moments, estimated, policy_losses, token_rewards, value_losses, whitened

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ftk.run import Run
    from ftk_training.trainer import Batch
    from torch import nn
    from transformers import TrainingArguments


def train(run: Run) -> Metrics:
    """Train, as the trainer of the plan. Raises FtkError for what the user can mend."""
    judges = Judges(run)
    stage = Ppo(run, judges)
    loop = Rollouts(run, stage, judges.judge)
    return fit(
        run,
        collate=rhythm.collate,
        loss=stage.loss,
        count=stage.count,
        loop=loop,
        prepare=lambda model: value_head.with_value_head(run, model),
    )


class Ppo:
    """A :class:`ftk_training.rollouts.Stage`.

    controller, scores: what changes with the answers: what divergence costs, and the moments of all scores so far.
    """

    def __init__(self, run: Run, judges: Judges) -> None:
        self.run, self.judges, self.options = run, judges, run.options(PpoOptions)
        options = self.options
        target = options.ppo_target if options.ppo_adap_kl_ctrl else None
        self.controller = Controller(options.ppo_init_kl_coef, target, options.ppo_horizon)
        self.scores = Moments(0, 0, 0)

    def rhythm(self, arguments: TrainingArguments, num_prompts: int) -> rhythm.Rhythm:
        shuffled, seed = rhythm.order_of(self.run)
        return rhythm.Rhythm(
            num_prompts=num_prompts,
            rows=arguments.per_device_train_batch_size,
            batches=arguments.gradient_accumulation_steps * self.options.ppo_buffer_size,
            passes=self.options.ppo_epochs,
            mixed=True,
            shuffled=shuffled,
            seed=seed,
            num_processes=arguments.world_size,
            process=arguments.process_index,
        )

    def begin(self, rollouts: Rollouts) -> None:
        self.heat = rollouts.sampling.temperature
        self.reference: Reference = reference_of(rollouts.trainer)
        self.judges.begin(rollouts.trainer)

    def state(self) -> dict[str, Any]:
        scores = self.scores
        return {"cost": self.controller.cost, "scores": [scores.count, scores.total, scores.squares]}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.controller.cost = float(state["cost"])
        self.scores = Moments(*state["scores"])

    # Answers

    def worth(self, rollouts: Rollouts, rolled: Rolled, *, evaluating: bool) -> dict[str, Any]:
        options, num = self.options, len(rolled)
        log_probs, values = self._heard(rollouts, rolled, rollouts.model)
        with self.reference.model(rollouts.model) as model:
            reference, _ = self._heard(rollouts, rolled, model, values=False)
        together = _kept if evaluating else rollouts.summed
        cost, scores = self.controller.cost, self._scores(rolled, together, evaluating=evaluating)
        rewards = [
            token_rewards(*one, float(score), cost) for *one, score in zip(log_probs, reference, scores, strict=True)
        ]
        if options.ppo_whiten_rewards:
            rewards = whitened(rewards, together(Moments.of(rewards)), centred=False)
        made = [estimated(*one, options.ppo_gamma, options.ppo_lam) for one in zip(rewards, values, strict=True)]
        advantages, returns = [one for one, _ in made], [one for _, one in made]
        rolled.values = {
            "old": log_probs,
            "values": values,
            "returns": returns,
            "advantages": whitened(advantages, together(Moments.of(advantages))),
        }
        apart = torch.stack([(mine - theirs).sum() for mine, theirs in zip(log_probs, reference, strict=True)])
        if not evaluating:
            moments = together(Moments.of([apart]))
            self.controller.update(moments.mean, int(moments.count))
        tokens = sum(len(one) for one in values)
        return {
            "kl": (apart.sum(), num),
            "kl_coef": (torch.tensor(cost), 1),
            "values": (torch.cat(values).sum(), tokens),
            "returns": (torch.cat(returns).sum(), tokens),
        }

    def _scores(self, rolled: Rolled, together: Any, *, evaluating: bool) -> torch.Tensor:
        scores = rolled.rewards.float()
        if self.options.ppo_missing_eos_penalty is not None:
            scores = scores - self.options.ppo_missing_eos_penalty * (~torch.tensor(rolled.finished)).float()
        if not self.options.ppo_score_norm:
            return scores
        moments = self.scores + together(Moments.of([scores]))
        if not evaluating:
            self.scores = moments
        return (scores - moments.mean) / (moments.variance**0.5 + 1e-8)

    def _heard(
        self, rollouts: Rollouts, rolled: Rolled, model: Any, *, values: bool = True
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Log-probabilities and, unless not wanted, values of each answer's tokens, on the CPU."""
        log_probs: list[torch.Tensor] = []
        found: list[torch.Tensor] = []
        for numbers, batch in rollouts.passes(rolled):
            lengths = [len(rolled.answer_ids[number]) for number in numbers]
            log_probs_N, values_N = heard(model, batch, self.heat, values=values)
            log_probs += log_probs_N.cpu().split(lengths)
            found += values_N.cpu().split(lengths) if values_N is not None else ()
        return log_probs, found

    # Loss

    def count(self, batch: Batch) -> torch.Tensor:
        """Tokens."""
        return (batch["labels"][:, 1:] != -100).sum()

    def loss(self, model: nn.Module, batch: Batch) -> tuple[torch.Tensor, dict[str, Any]]:
        """The sum over tokens of the policy's loss and ``ppo_vf_coef`` times the critic's."""
        known: Mapping[str, torch.Tensor] = batch[ROLLOUT]  # type: ignore[assignment]
        inputs = {key: one for key, one in batch.items() if key != ROLLOUT}
        log_probs_N, values_N = heard(model, inputs, self.heat)
        assert values_N is not None
        return self.total(log_probs_N, values_N, known)

    def total(
        self, log_probs_N: torch.Tensor, values_N: torch.Tensor, known: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        """The same from log-probabilities, values, and what is known of the tokens."""
        options, advantages_N = self.options, known["advantages"]
        log_ratios_N = log_probs_N - known["old"]
        ratios_N = log_ratios_N.exp()
        policy_N = policy_losses(ratios_N, advantages_N, options.ppo_cliprange)
        value_N = value_losses(values_N, known["values"], known["returns"], options.ppo_cliprange_value)
        clipped_N = policy_N.detach() > (-ratios_N * advantages_N).detach()
        metrics = {
            "policy_loss": policy_N.detach().sum(),
            "value_loss": value_N.detach().sum(),
            "clip_fraction": clipped_N.sum(),
            "approx_kl": 0.5 * log_ratios_N.detach().square().sum(),
        }
        return policy_N.sum() + options.ppo_vf_coef * value_N.sum(), metrics


def _kept(moments: Moments) -> Moments:
    return moments


def heard(
    model: Any, batch: Mapping[str, Any], heat: float, *, values: bool = True
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """(log-probabilities (N,), the critic's values before each token (N,)) in one forward pass.

    batch: without ``rollout``. heat: the temperature that the tokens were sampled with.
    """
    targets = logprobs.targets_of(batch)
    with _overheard(model if values else None) as said:
        found = logprobs.target_log_probs(model, logprobs.model_inputs(batch), targets, temperature=heat)
    if not values:
        return found.tokens_N, None
    values_BT = said[-1]
    # an adapter may have put tokens in front of each row, so positions count from the end
    positions_N = targets.positions_N + values_BT.shape[1] - batch["input_ids"].shape[1]
    return found.tokens_N, values_BT[targets.rows_N.to(values_BT.device), positions_N.to(values_BT.device)]


@contextmanager
def _overheard(model: Any) -> Iterator[list[torch.Tensor]]:
    """What the value head says meanwhile. Raises ModelError for a model without one."""
    said: list[torch.Tensor] = []
    if model is None:
        yield said
        return
    head = value_head.head_of(model)
    if head is None:
        raise ModelError(f"{type(model).__name__} has no value head, so it cannot be a critic")
    handle = head.register_forward_hook(lambda module, arguments, output: said.append(output))
    try:
        yield said
    finally:
        handle.remove()
