"""All that judges the answers of a run, and the weighted sum that is the reward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from ftk import ConfigError
from ftk_training.preference_options import RewardModelOptions
from ftk_training.rolled import Rolled, asked, reference_answer

from ftk_rewards import RewardOptions
from ftk_rewards.functions import Answers, Function, named
from ftk_rewards.models import model_of

if TYPE_CHECKING:
    from ftk import Prompt
    from ftk.run import Run
    from ftk_training.trainer import ExactTrainer

MODEL = "reward_model"
"""The name under which the scores of the reward model are logged."""


class Judges:
    """Those that ``reward_funcs`` and ``reward_model`` name, in this order.

    Functions are found when it is made; models are loaded by :meth:`begin`. Raises ConfigError when there is none, and
    when ``reward_weights`` are more or fewer than rewards.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.functions: list[Function] = named(run)
        self.model: Any = None
        self.batch_size = 8
        self.names = [one.name for one in self.functions]
        if run.options(RewardModelOptions).reward_model:
            self.names.append(MODEL)
        if not self.names:
            raise ConfigError(
                f"{run.plan.config}: nothing judges the answers. Set reward_funcs (a name, or file.py:function of your "
                "own) or reward_model"
            )
        self._refuse_swapping()
        weights = run.options(RewardOptions).weights or (1.0,) * len(self.names)
        if len(weights) != len(self.names):
            raise ConfigError(
                f"{run.plan.where('reward_weights')}: {len(weights)} weights for {len(self.names)} rewards "
                f"({', '.join(self.names)})"
            )
        self.weights_J = torch.tensor(weights, dtype=torch.float64)

    def _refuse_swapping(self) -> None:
        """Before a model is loaded, what :class:`ftk_rewards.models.AdapterModel` would find."""
        adapter, kind = self.run.plan.one("adapter"), self.run.options(RewardOptions).reward_model_type
        if MODEL in self.names and kind == "lora" and getattr(adapter, "saves", "model") != "adapter":
            raise ConfigError(
                f"{self.run.plan.where('reward_model')}: reward_model_type lora takes turns with an adapter that "
                "learns, and none does. Set finetuning_type: lora, or reward_model_type: full"
            )

    def begin(self, trainer: ExactTrainer) -> None:
        """Load the reward model beside the trainer's."""
        self.model, self.batch_size = model_of(trainer), trainer.args.per_device_train_batch_size

    def judge(self, rolled: Rolled) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
        """A :data:`ftk_training.rollouts.Judge`."""
        answers = Answers(
            replies=rolled.texts,
            prompts=[_as_dicts(asked(one)) for one in rolled.originals],
            references=[reference_answer(one) for one in rolled.originals],
            rows=[one.columns for one in rolled.originals],
            finished=rolled.finished,
            tokens=rolled.answer_ids,
            ids=[[*before, *answer] for before, answer in zip(rolled.prompt_ids, rolled.answer_ids, strict=True)],
        )
        scores_NJ = self.scores(answers)
        return scores_NJ, self.rewards(scores_NJ), self.metrics(scores_NJ)

    def scores(self, answers: Answers) -> torch.Tensor:
        """(N, J), float64: what each says of each answer, NaN where it says nothing. Raises RewardError."""
        columns: list[Sequence[float]] = [judge(answers) for judge in self.functions]
        if self.model is not None:
            columns.append(self.model(answers.ids, self.batch_size))
        return torch.tensor(columns, dtype=torch.float64).reshape(len(self.names), len(answers)).T

    def rewards(self, scores_NJ: torch.Tensor) -> torch.Tensor:
        """(N,): the weighted sum of what was said."""
        return (scores_NJ * self.weights_J).nansum(dim=1)

    def metrics(self, scores_NJ: torch.Tensor) -> dict[str, tuple[Any, Any]]:
        """(sum, number) of each judge's scores, where there are several."""
        if len(self.names) < 2:
            return {}
        said = ~scores_NJ.isnan()
        return {
            f"reward/{name}": (scores_NJ[:, place].nansum(), said[:, place].sum())
            for place, name in enumerate(self.names)
        }


def _as_dicts(prompt: Prompt) -> list[dict[str, Any]]:
    return [{"role": message.role, "content": message.text} for message in prompt.messages]
