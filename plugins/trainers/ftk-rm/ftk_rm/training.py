"""The loss of a reward model (Ouyang et al. 2022, arXiv:2203.02155, eq. 1, with one pair for each prompt):

    loss(x, y_w, y_l) = -log sigmoid(r(x, y_w) - r(x, y_l))

r is the value at the last token of the text, stop token and whatever the template writes after it included. How the
texts of a batch are laid out, and whether both answers stand behind one prompt, is decided by ``ftk_training.pairs``.

Items are pairs. Shapes: B rows, T tokens, P pairs; of P pairs there are 2 P texts, the chosen ones first.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch
from ftk import ConfigError, Metrics
from ftk_training.fitting import fit
from ftk_training.learning import value
from ftk_training.pairs import PairCollator, num_pairs, pair_inputs, text_ends
from ftk_training.sharing import additive_of, why_not
from ftk_training.value_head import head_of, unwrapped, values, with_value_head
from torch.nn import functional

if TYPE_CHECKING:
    from ftk.run import Run
    from ftk_training.trainer import Batch, ExactTrainer

log = logging.getLogger("ftk.rm")


def train(run: Run) -> Metrics:
    """Train and evaluate; see :func:`ftk_training.fitting.fit`."""
    return fit(run, loss=RewardLoss(), count=num_pairs, prepare=lambda model: _prepared(run, model))


class RewardLoss:
    """A :data:`ftk_training.trainer.Loss`, whose trainer gets batches of pairs."""

    def begin(self, trainer: ExactTrainer) -> None:
        """Raises ConfigError where torch would split the texts of a batch over the GPUs of one process."""
        if trainer.args.n_gpu > 1:
            raise ConfigError(
                f"{trainer.run.plan.config}: pairs cannot be split over the GPUs of one process. Start one for each "
                "GPU (torchrun), or show it one (CUDA_VISIBLE_DEVICES=0)"
            )
        trainer.data_collator = PairCollator(trainer.data_collator, shared=_shares(trainer))

    def use(self, run: Run) -> str:
        """What is done with the result: nobody talks to a reward model."""
        saves = getattr(run.plan.one("adapter"), "saves", "model")
        kind = "lora" if saves == "adapter" else "full"
        return f"let it judge answers: ftk run PPO.yaml --reward_model {run.output_dir} --reward_model_type {kind}"

    def __call__(self, model: Any, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        chosen_P, rejected_P = rewards(model, batch)
        margins_P = chosen_P - rejected_P
        told = {
            "accuracy": (margins_P > 0).float(),
            "rewards/chosen": chosen_P,
            "rewards/rejected": rejected_P,
            "rewards/margins": margins_P,
        }
        return -functional.logsigmoid(margins_P).sum(), {name: one.detach().sum() for name, one in told.items()}


def rewards(model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """The rewards (P,) of the chosen and of the rejected texts, float32, with gradient."""
    values_BT = values(model, pair_inputs(batch, additive=additive_of(unwrapped(model))))
    chosen_P, rejected_P = values_BT[text_ends(batch)].chunk(2)
    return chosen_P, rejected_P


def _shares(trainer: ExactTrainer) -> bool:
    asked = value(trainer.run, "share_prompts")
    if asked is False:
        return False
    why = why_not(trainer, [trainer.accelerator.unwrap_model(trainer.model)], pays=asked is None)
    if why:
        say = log.info if asked is None else log.warning
        say("prompts are computed for each answer: %s", why)
    return not why


def _prepared(run: Run, model: Any) -> Any:
    """The model with a value head, without what cannot learn from differences of rewards.

    The head's bias is in both rewards of a pair. Its gradient would be rounding, of which Adam makes whole steps. An
    output layer that is not the embeddings, too, has no gradient, for which processes that train together would wait.
    """
    model = with_value_head(run, model)
    head_of(model).summary.bias.requires_grad_(False)
    output, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    shared = {id(one) for one in embeddings.parameters()}
    for parameter in output.parameters() if output is not None else ():
        if id(parameter) not in shared:
            parameter.requires_grad_(False)
    return model
