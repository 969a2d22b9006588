"""The loss of a reward model (Ouyang et al. 2022, arXiv:2203.02155, eq. 1, with one pair for each prompt):

    loss(x, y_w, y_l) = -log sigmoid(r(x, y_w) - r(x, y_l))

r is the value at the last token of the text, stop token and whatever the template writes after it included.

Shapes: B rows, T tokens, P pairs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from ftk import ConfigError, Metrics
from ftk_training.fitting import fit
from ftk_training.value_head import values, with_value_head
from torch.nn import functional

from ftk_rm.pairs import ENDS, Pairs

if TYPE_CHECKING:
    from ftk.run import Run
    from ftk_training.trainer import Batch, ExactTrainer


def train(run: Run) -> Metrics:
    """Train and evaluate; see :func:`ftk_training.fitting.fit`. Items are pairs."""
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
        trainer.data_collator = Pairs(trainer.data_collator)

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
    values_BT = values(model, {name: one for name, one in batch.items() if name not in ENDS})
    chosen_P, rejected_P = (values_BT[tuple(batch[name].unbind(dim=1))] for name in ENDS)
    return chosen_P, rejected_P


def num_pairs(batch: Batch) -> int:
    return len(batch[ENDS[0]])


def _prepared(run: Run, model: Any) -> Any:
    """The model with a value head. An output layer that is not the embeddings, too, learns nothing from rewards, and
    processes that train together would wait for its gradient.
    """
    output, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    shared = {id(one) for one in embeddings.parameters()}
    for parameter in output.parameters() if output is not None else ():
        if id(parameter) not in shared:
            parameter.requires_grad_(False)
    return with_value_head(run, model)
