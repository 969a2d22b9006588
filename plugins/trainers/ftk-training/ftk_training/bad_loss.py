"""Losses that are no number, infinite or exploding: the run stops, or leaves the batch out, and writes the batch down.

Each batch of a step (a micro-batch) is looked at by itself. On the CPU, and where batches are to be left out, that is
between its forward and its backward pass, so a bad one never touches a gradient. On an accelerator reading a loss would
make the device wait, so the losses of a step are copied beside the work and looked at one step later; before a log
line or a checkpoint nothing is left unseen.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from ftk import ConfigError, FtkError

from ftk_training import written_down

if TYPE_CHECKING:
    from torch import nn

    from ftk_training.trainer import Batch, ExactTrainer

log = logging.getLogger("ftk.training")

KEPT, FIRST, FLOOR = 64, 10, 1.0
"""Losses that say what is ordinary, how many are needed to judge, and the least that counts as their scale, in nats."""
MOST_FILES = 50
ADVICE = (
    "Try a lower learning_rate, bf16 instead of fp16, or look at the rows; on_bad_loss: skip leaves such batches out"
)


class LossError(FtkError):
    """The loss is no number any more, or far from what it was."""


@dataclass
class Step:
    """What is known of one optimizer step of this process until it has been looked at.

    losses: of each micro-batch its share of the step's loss, times ``rates`` its mean over its own items.
    """

    number: int
    batches: list[Batch] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    losses: list[torch.Tensor] = field(default_factory=list)
    rates: list[Any] = field(default_factory=list)
    norm: torch.Tensor | None = None
    copied: torch.Tensor | None = None
    event: Any = None


class LossGuard:
    """Looks at the losses of an :class:`ftk_training.trainer.ExactTrainer`.

    recent: the last ordinary losses, by which others are judged. num_skipped: micro-batches left out so far.
    """

    def __init__(self, trainer: ExactTrainer) -> None:
        options = trainer.options
        self.trainer = trainer
        self.skips = options.on_bad_loss == "skip"
        self.factor = options.exploding_loss
        self.off = options.logging_nan_inf_filter
        if self.skips and trainer.is_deepspeed_enabled:
            where = trainer.run.plan.where("on_bad_loss")
            raise ConfigError(f"{where}: cannot be used with DeepSpeed, which keeps gradients to itself. Take it out")
        self.at_once = self.skips or trainer.args.device.type == "cpu"
        self.recent: deque[float] = deque(maxlen=KEPT)
        self.num_skipped = 0
        self._step: Step | None = None
        self._last: Step | None = None
        self._place = 0
        self._nothing_left = False
        self._left_out = self._weight = self._summed = 0.0

    # What the trainer tells

    def epoch_begins(self, trained: int) -> None:
        """``trained`` batches of the epoch lie behind: those of a run that goes on."""
        self._place = trained

    def begins(self, batch: Batch) -> None:
        """A micro-batch of the training comes next. The stage may take things out of ``batch``, so a copy is kept."""
        if self._step is None:
            self._step = Step(self.trainer.state.global_step + 1)
            if self._nothing_left:
                self._nothing_left = False
                self.trainer.optimizer.scaler = self._scaler
        self._step.batches.append(dict(batch))
        self._step.places.append(self._place)
        self._place += 1

    def seen(self, model: nn.Module, loss: torch.Tensor, num_items: Any) -> torch.Tensor | None:
        """The loss after the forward pass. Returns what to go backward from in its place when it is left out.

        Raises LossError for a bad one that is not to be left out.
        """
        step = self._step
        if self.off or step is None:
            return None
        if not self.at_once:
            step.losses.append(loss.detach())
            step.rates.append(self._rate(step.batches[-1], num_items))
            return None
        rate = float(self._rate(step.batches[-1], num_items))
        why = self._why(loss.item() * rate)
        if not why:
            return None
        self._report(step, len(step.batches) - 1, why)
        weight = 1.0 if num_items is None else float(self._items(step.batches[-1]))
        self._left_out += weight
        return _nothing(model, self.trainer.args.world_size)

    def ends(self, model: nn.Module, loss: torch.Tensor, num_items: Any) -> torch.Tensor:
        """The micro-batch has gone backward. Returns the loss to log; after the last one, gradients are as without the
        batches that were left out.
        """
        if self.off or not self.skips:
            return loss
        self._summed += float(loss)
        if not self.trainer.accelerator.sync_gradients:
            return loss
        left_out, micro_batches = self._over_processes(self._left_out, float(len(self._step.batches)))
        whole = micro_batches if num_items is None else float(num_items)
        summed, self._left_out, self._summed = self._summed, 0.0, 0.0
        if not left_out:
            return loss
        if left_out >= whole:
            drop_gradients(model)
            self._nothing_left = True
            return loss
        factor = whole / (whole - left_out)
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(factor)
        return loss + (factor - 1) * summed

    def gradients(self, model: nn.Module, norm: Any) -> Any:
        """All gradients of the step are there, with this norm, and the optimizer comes next. Returns the norm."""
        step, self._step = self._step, None
        if self.off or step is None:
            return norm
        scales = self._scaler is not None  # it looks for infinite ones itself
        if self._nothing_left and scales:
            self._pass_by_scaler()
        if self.at_once:
            if not scales and not math.isfinite(float(norm)):
                for number in range(len(step.batches)):
                    self._report(step, number, f"the gradients are {float(norm)}", stop=number == len(step.batches) - 1)
                drop_gradients(model)
                return torch.zeros(())
            return norm
        step.norm = None if scales or not isinstance(norm, torch.Tensor) else norm.detach()
        _copy(step)
        self.look()
        self._last = step
        return norm

    @property
    def _scaler(self) -> Any:
        """What keeps the gradients of fp16 in its range, else None."""
        return getattr(self.trainer.accelerator, "scaler", None)

    def _pass_by_scaler(self) -> None:
        """Let the optimizer make this step without the scaler, which refuses one without gradients. What it has noted
        of the step is forgotten, and its scale stays."""
        self._scaler.update(self._scaler.get_scale())
        self.trainer.optimizer.scaler = None

    def look(self) -> None:
        """Look at a step that has been copied; waits for it. Raises LossError."""
        step, self._last = self._last, None
        if step is None or step.copied is None:
            return
        if step.event is not None:
            step.event.synchronize()
        *values, norm = step.copied.tolist()
        for number, value in enumerate(values):
            if why := self._why(value):
                self._report(step, number, why)
        if not math.isfinite(norm):
            self._report(step, len(values) - 1, f"the gradients are {norm}")

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"recent": list(self.recent), "skipped": self.num_skipped}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.recent.extend(state.get("recent", ()))
        self.num_skipped = state.get("skipped", 0)

    # What it makes of it

    def _why(self, value: float) -> str:
        """What is wrong with the mean loss of a micro-batch; empty when it is an ordinary one."""
        if not math.isfinite(value):
            return f"the loss is {value}"
        if self.factor and len(self.recent) >= FIRST:
            middle = median(self.recent)
            scale = max(max(self.recent) - min(self.recent), abs(middle), FLOOR)
            if value > middle + self.factor * scale:
                return f"the loss is {value:.4g}, after {middle:.4g} (exploding_loss: {self.factor:g})"
        self.recent.append(value)
        return ""

    def _report(self, step: Step, number: int, why: str, *, stop: bool = True) -> None:
        """Write a micro-batch down, and end the run with it unless it is to be left out."""
        trainer = self.trainer
        self.num_skipped += self.skips
        path = None
        if not self.skips or self.num_skipped <= MOST_FILES:
            place = (step.number, number, step.places[number])
            path = written_down.write(trainer, step.batches[number], place, why)
        found = f"step {step.number}: {why}; its batch is in {path}" if path else f"step {step.number}: {why}"
        if self.skips:
            log.warning("%s and is left out", found)
        elif stop:
            raise LossError(f"{found}. {ADVICE}")

    def _items(self, batch: Batch) -> Any:
        """How many items a micro-batch brings to the step's loss; a number on its device."""
        trainer = self.trainer
        if trainer.count is not None:
            return trainer.count(batch)
        if "shift_labels" in batch:
            return batch["shift_labels"].ne(-100).sum()
        return batch["labels"][..., 1:].ne(-100).sum() if "labels" in batch else 1

    def _rate(self, batch: Batch, num_items: Any) -> Any:
        """What turns the share of the step's loss into the mean of the micro-batch."""
        if num_items is None:
            return 1.0
        items = torch.as_tensor(self._items(batch), device=torch.as_tensor(num_items).device).clamp(min=1)
        processes = self.trainer.accelerator.num_processes if self.trainer.args.average_tokens_across_devices else 1
        return torch.as_tensor(num_items).max() / items / processes

    def _over_processes(self, *values: float) -> list[float]:
        found = torch.tensor(values, dtype=torch.float64, device=self.trainer.args.device)
        if self.trainer.args.world_size > 1:
            found = self.trainer.accelerator.gather(found[None]).sum(dim=0)
        return [float(value) for value in found]


def drop_gradients(model: nn.Module) -> None:
    """Let the optimizer leave all weights alone in this step: it passes over those without a gradient."""
    for parameter in model.parameters():
        parameter.grad = None


def _nothing(model: nn.Module, world_size: int) -> torch.Tensor:
    """A loss whose gradient is nothing. Of several processes each must bring zeros, or the others wait for it."""
    if world_size == 1:
        return torch.zeros((), device=next(model.parameters()).device, requires_grad=True)
    return sum((one.sum() * 0.0 for one in model.parameters() if one.requires_grad), torch.zeros(()))


def _copy(step: Step) -> None:
    """Losses and norm of a step into memory of the host, without waiting for them."""
    if not step.losses:
        return
    values = [
        loss.double() * torch.as_tensor(rate, device=loss.device)
        for loss, rate in zip(step.losses, step.rates, strict=True)
    ]
    norm = torch.zeros_like(values[0]) if step.norm is None else step.norm.to(values[0])
    step.copied = torch.stack([*values, norm]).to("cpu", non_blocking=True)
    if values[0].device.type != "cpu":
        step.event = torch.Event(values[0].device)
        step.event.record()
