"""Rows that stream: how they come to the trainer, and where a checkpoint stands in them.

The loader's "indices" are the rows themselves, made in this process in one order; its workers only put batches
together. So the batches are the same for any number of workers, and of processes each takes its share of them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftk import ConfigError
from torch.utils.data import Dataset

if TYPE_CHECKING:
    from ftk_data.streaming import StreamRows

    from ftk_training.trainer import ExactTrainer

log = logging.getLogger("ftk.training")

FILE = "stream.json"


class Stream:
    """The sampler of a streamed training.

    skipped: so many indices stand for rows that were trained before a resume. transformers drops their batches unread,
    because it counts on an order that begins at the beginning; here it begins after them.
    """

    def __init__(self, trainer: ExactTrainer, rows: StreamRows) -> None:
        strategy = trainer.args.train_sampling_strategy
        if strategy not in ("random", "sequential"):
            raise ConfigError(
                f"{trainer.run.plan.where('train_sampling_strategy')}: needs the lengths of all rows, which nobody "
                "knows with streaming. Leave one of them out"
            )
        self.trainer, self.rows = trainer, rows
        self.skipped = 0
        self._from = (0, 0)

    def __iter__(self) -> Iterator[Any]:
        return chain(repeat(None, self.skipped), self.rows)

    @property
    def rows_per_step(self) -> int:
        """Rows of an optimizer step, on all devices."""
        return self.trainer.get_total_train_batch_size(self.trainer.args)

    def num_rows(self, step: int) -> int:
        """How many rows had been trained after a step."""
        first_step, first_row = self._from
        return first_row + (step - first_step) * self.rows_per_step

    def skip(self, num_batches: int) -> None:
        """The loader's first batches will be dropped. ``num_batches`` are those of one process."""
        self.skipped = num_batches * self.rows_per_step // self.trainer.args.gradient_accumulation_steps

    def step_begins(self) -> None:
        """Checkpoints of earlier steps are behind us."""
        self.rows.forget(self.num_rows(self.trainer.state.global_step))

    def save(self, folder: Path) -> None:
        """Note in a checkpoint where to go on, and in the run directory what has become of the data so far."""
        num_rows = self.num_rows(self.trainer.state.global_step)
        (folder / FILE).write_text(json.dumps(self.rows.state(num_rows)), encoding="utf-8")
        self.rows.publish(num_rows)

    def restore(self, folder: Path) -> None:
        """Go on where a checkpoint stands, with any number of processes.

        Raises CheckpointError when it was made with other data or data options.
        """
        step, path = self.trainer.state.global_step, folder / FILE
        self._from = (step, 0)
        if self.trainer.args.ignore_data_skip:
            log.info("ignore_data_skip: the data begins anew")
        elif path.exists():
            self._from = (step, self.rows.restore(json.loads(path.read_text(encoding="utf-8"))))
        else:
            log.warning("%s: has no %s, because that run did not stream, so the data begins anew", folder, FILE)

    def publish(self) -> None:
        """The data report of the whole training."""
        self.rows.publish(self.num_rows(self.trainer.state.global_step), last=True)


class Handed(Dataset[Any]):
    """A data set whose indices are its rows."""

    def __getitem__(self, row: Any) -> Any:
        return row


def is_stream(rows: Any) -> bool:
    """Whether rows are made while training; see :class:`ftk_data.streaming.StreamRows`."""
    return hasattr(rows, "forget")
