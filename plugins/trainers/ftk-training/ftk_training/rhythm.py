"""Which answer is trained in which step, when a model learns from its own answers.

A *phase* begins with answers to some prompts and trains them in one or several steps. The loader goes through *slots*,
numbers that stand for an answer in a pass of its phase; so accumulation, processes, epochs and a resume count as with
any other rows. Everything here is a function of the seed and of numbers, so a resumed run has the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.utils.data import Dataset

from ftk_training.options import TrainingOptions

if TYPE_CHECKING:
    from ftk.run import Run


class Slots(Dataset[dict[str, int]]):
    """The numbers from ``first`` on, as a data set."""

    def __init__(self, count: int, first: int = 0) -> None:
        self.count, self.first = count, first

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, int]:
        return {"slot": self.first + index}


def collate(rows: Sequence[dict[str, int]]) -> dict[str, Any]:
    """{"slots": (B,)}."""
    return {"slots": torch.tensor([row["slot"] for row in rows])}


class Place(NamedTuple):
    """Where a slot stands. phase: within the epoch. answer: among those of its process."""

    phase: int
    turn: int
    answer: int


@dataclass(frozen=True)
class Rhythm:
    """rows: answers of one forward pass on one device. batches: forward passes of one process in a pass over a phase.

    group: answers to one prompt. passes: how often the answers of a phase are trained. shuffled: prompts come in a new
    order in each epoch; mixed: and answers in each further pass.
    """

    num_prompts: int
    rows: int
    batches: int
    group: int = 1
    passes: int = 1
    seed: int = 0
    shuffled: bool = True
    mixed: bool = False
    num_processes: int = 1
    process: int = 0

    @property
    def num_answers(self) -> int:
        """Answers of a phase, of all processes."""
        return self.rows * self.batches * self.num_processes

    @property
    def num_own(self) -> int:
        """Answers of a phase that this process makes and trains."""
        return self.rows * self.batches

    @property
    def prompts_per_phase(self) -> int:
        return self.num_answers // self.group

    @property
    def phases(self) -> int:
        """Phases of an epoch. The last one is filled up from the beginning of the order."""
        return -(-self.num_prompts // self.prompts_per_phase)

    @property
    def slots(self) -> int:
        """Slots of an epoch."""
        return self.phases * self.passes * self.num_answers

    def place(self, slot: int) -> Place:
        """A slot of this process, as accelerate deals them: its batches go to the processes in turn."""
        phase, rest = divmod(slot, self.passes * self.num_answers)
        turn, rest = divmod(rest, self.num_answers)
        batch, row = divmod(rest, self.rows)
        return Place(phase, turn, batch // self.num_processes * self.rows + row)

    def prompts(self, epoch: int, phase: int) -> list[int]:
        """The prompt of each answer of this process, in order."""
        order, first = self._order(epoch), phase * self.prompts_per_phase
        return [order[(first + answer // self.group) % self.num_prompts] for answer in self.own()]

    def own(self) -> list[int]:
        """The numbers of this process's answers among all of the phase."""
        return [self.answer(own, self.process) for own in range(self.num_own)]

    def answer(self, own: int, process: int) -> int:
        """The number of a process's answer among all answers of the phase; those to one prompt stand together."""
        batch, row = divmod(own, self.rows)
        return (batch * self.num_processes + process) * self.rows + row

    def in_turn(self, epoch: int, phase: int, turn: int) -> list[int]:
        """In which order a pass takes the answers of this process."""
        if not self.mixed or not turn:
            return list(range(self.num_own))
        generator = torch.Generator().manual_seed(self.number(epoch, phase) * 64 + turn)
        return torch.randperm(self.num_own, generator=generator).tolist()

    def number(self, epoch: int, phase: int, *more: int) -> int:
        """A seed for whatever is random in a phase."""
        number = self.seed * 1_000_003 + epoch
        for part in (phase, self.process, *more):
            number = (number * 8_191 + part) % (2**61 - 1)
        return number

    def _order(self, epoch: int) -> list[int]:
        if not self.shuffled:
            return list(range(self.num_prompts))
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        return torch.randperm(self.num_prompts, generator=generator).tolist()


def order_of(run: Run) -> tuple[bool, int]:
    """Whether prompts are shuffled, and the seed of their order."""
    options = run.options(TrainingOptions)
    in_order = options.disable_shuffling or options.train_sampling_strategy == "sequential"
    return not in_order, run.seed if options.data_seed is None else options.data_seed
