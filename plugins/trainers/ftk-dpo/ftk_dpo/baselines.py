"""What losses read of more than one batch: exact sums over optimizer steps, the same however a step was cut up.

BCO's baseline δ (arXiv:2404.04656, section 3.2) is the mean reward of all pairs of earlier steps; in the first step,
in which policy and reference are equal, it is 0. Peers take the running mean over batches, the present one included,
which makes the loss of a step depend on how it is accumulated.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from pathlib import Path

FILE = "baselines.json"


class Baselines:
    """mean_reward: δ. drift: see :class:`ftk_dpo.scores.PairScores`; ``has_drift`` once a step has set it."""

    def __init__(self) -> None:
        self.accelerator: Any = None
        self.rewards, self.num = 0.0, 0.0
        self.drift = torch.zeros(2)
        self.has_drift = False
        self._open: list[torch.Tensor] = []

    @property
    def mean_reward(self) -> float:
        return self.rewards / max(self.num, 1.0)

    def add(self, chosen_rewards_P: torch.Tensor, rejected_rewards_P: torch.Tensor) -> None:
        """Rewards of a batch that is trained; they count from the next step on."""
        both = torch.cat((chosen_rewards_P, rejected_rewards_P)).detach().double()
        self._open.append(torch.stack([both.sum(), both.new_tensor(len(both))]))

    def step_begins(self) -> None:
        """Take in what was added in the last step, on all processes."""
        if not self._open:
            return
        rewards, num = self._over_processes(torch.stack(self._open).sum(dim=0)).tolist()
        self.rewards, self.num, self._open = self.rewards + rewards, self.num + num, []

    def set_drift(self, sums: torch.Tensor) -> None:
        """sums: of chosen ratios, of rejected ratios, and the number of pairs, of this process."""
        every = self._over_processes(sums)
        self.drift, self.has_drift = every[:2] / every[2].clamp(min=1), True

    def _over_processes(self, sums: torch.Tensor) -> torch.Tensor:
        if self.accelerator.num_processes == 1:
            return sums
        every: torch.Tensor = self.accelerator.gather(sums[None]).sum(dim=0)
        return every

    def save(self, folder: Path, *, first: bool) -> None:
        """Every process calls it, ``first`` writes."""
        self.step_begins()
        state = {"rewards": self.rewards, "num": self.num, "drift": self.drift.tolist(), "has_drift": self.has_drift}
        if first:
            (folder / FILE).write_text(json.dumps(state), encoding="utf-8")

    def restore(self, folder: Path) -> None:
        """A checkpoint of another program has none of it, and the sums begin anew."""
        if not (folder / FILE).exists():
            return
        state = json.loads((folder / FILE).read_text(encoding="utf-8"))
        self.rewards, self.num = state["rewards"], state["num"]
        self.drift, self.has_drift = torch.tensor(state["drift"]), state["has_drift"]
