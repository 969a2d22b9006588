"""What a stage may do between the loader and the step: make the batches that are trained while it trains.

Reinforcement learning needs it: what the loader brings are prompts, what is trained are answers that the model of this
very step gives. transformers and accelerate fetch batches ahead of time, so a loader cannot make them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from transformers import TrainingArguments

    from ftk_training.trainer import Batch, ExactTrainer


class Loop(Protocol):
    """A stage's part in the loop of :func:`ftk_training.fitting.fit`. Every process has one.

    Whose losses depend on all rows of an evaluation has ``evaluation_begins(batches)``, too, which may go through the
    loader's batches once before :meth:`evaluation` gets them one by one.
    """

    def rows(self, arguments: TrainingArguments, train: Any, evaluation: Any) -> tuple[Any, Any]:
        """What the loaders go through in the place of the run's rows; called before the model is loaded.

        Loaders bring batches of these to :meth:`step` and :meth:`evaluation`; ``arguments`` may still be changed.
        """

    def begin(self, trainer: ExactTrainer) -> None:
        """The trainer is made; nothing has been trained or restored yet."""

    def step(self, batches: Sequence[Batch]) -> list[Batch]:
        """The batches of one optimizer step, of this process, as they are trained; called once for each step.

        Must leave the global random state as it was: a resumed run calls this before it restores that.
        """

    def evaluation(self, batch: Batch) -> tuple[Batch, Mapping[str, Any]]:
        """A batch as its loss is evaluated, and further metrics: name → (sum, number of things)."""

    def save(self, folder: Path) -> None:
        """Put what this process needs to go on into a checkpoint. Every process calls it."""

    def restore(self, folder: Path) -> None:
        """Go on from a checkpoint. Raises CheckpointError when it lacks what is needed."""
