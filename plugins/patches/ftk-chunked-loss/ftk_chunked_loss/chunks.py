"""The sum of cross-entropies over many tokens, with the logits of a few at a time.

Shapes: N tokens that are trained, C of one chunk, H width of the hidden states, V words of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

Logits = Callable[[torch.Tensor], torch.Tensor]
"""(C, H) hidden states → (C, V) logits, with whatever the model does behind its output layer."""


@dataclass(frozen=True)
class Task:
    """What is summed: over N tokens, weight times cross-entropy.

    logits: the model's output layer. size: tokens of a chunk. labels_N: the words. weights_N: unset is 1 for each.
    smoothing: the share of the target that is spread over all words (Szegedy et al. 2016, section 7).
    """

    logits: Logits
    size: int
    labels_N: torch.Tensor
    weights_N: torch.Tensor | None = None
    smoothing: float = 0.0

    def places(self) -> Iterator[slice]:
        for start in range(0, len(self.labels_N), self.size):
            yield slice(start, start + self.size)

    def loss(self, hidden_CH: torch.Tensor, place: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """The sum over one chunk in float32 (float64 stays), and its logits."""
        logits_CV = self.logits(hidden_CH)
        if logits_CV.dtype != torch.float64:
            logits_CV = logits_CV.float()
        labels_C = self.labels_N[place].to(logits_CV.device)
        how: dict[str, Any] = {"label_smoothing": self.smoothing}
        if self.weights_N is None:
            return functional.cross_entropy(logits_CV, labels_C, reduction="sum", **how), logits_CV
        losses_C = functional.cross_entropy(logits_CV, labels_C, reduction="none", **how)
        return (losses_C * self.weights_N[place].to(losses_C)).sum(), logits_CV

    @torch.no_grad()
    def loss_with_gradient(self, logits_CV: torch.Tensor, place: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """The same sum, and its gradient with respect to the logits: the softmax, less 1 at the word that was right.

        Makes one matrix of the logits' size; autograd would make three.
        """
        wide_CV = logits_CV.detach().to(_wide(logits_CV.dtype))
        labels_C1 = self.labels_N[place].to(logits_CV.device)[:, None]
        right_C, high_C1 = wide_CV.gather(1, labels_C1)[:, 0], wide_CV.amax(1, keepdim=True)
        losses_C = -(1 - self.smoothing) * right_C
        if self.smoothing:
            losses_C -= self.smoothing * wide_CV.mean(1)
        gradient_CV = wide_CV - high_C1 if wide_CV.dtype == logits_CV.dtype else wide_CV.sub_(high_C1)
        sums_C1 = gradient_CV.exp_().sum(1, keepdim=True)
        losses_C += (sums_C1.log() + high_C1)[:, 0]
        gradient_CV.div_(sums_C1)
        if self.smoothing:
            gradient_CV.sub_(self.smoothing / logits_CV.shape[1])
        gradient_CV.scatter_add_(1, labels_C1, torch.full_like(sums_C1, self.smoothing - 1))
        if self.weights_N is not None:
            weights_C = self.weights_N[place].to(losses_C)
            losses_C *= weights_C
            gradient_CV.mul_(weights_C[:, None])
        return losses_C.sum(), gradient_CV.to(logits_CV.dtype)


def total_loss(task: Task, hidden_NH: torch.Tensor, learning: Sequence[torch.Tensor]) -> torch.Tensor:
    """The sum over all N tokens, differentiable once with respect to the hidden states and to ``learning``, the
    parameters behind them.

    Its gradients are computed along with the sum, while a chunk's logits are there, so that neither logits nor their
    gradients of more than one chunk are ever kept. In half precision with 5 bits of exponent, where gradients without
    the loss scale would vanish, the logits are computed a second time on the way back instead.
    """
    if _needs_loss_scale(hidden_NH) and task.labels_N.numel():
        parts = [
            checkpoint(lambda part, place: task.loss(part, place)[0], hidden_NH[place], place, use_reentrant=False)
            for place in task.places()
        ]
        return torch.stack(parts).sum()
    total: torch.Tensor = _WithGradients.apply(task, hidden_NH, *learning)
    return total


def total_without_gradient(task: Task, hidden_NH: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The sum over all N tokens, and how many of them the model finds most likely."""
    total = torch.zeros((), device=hidden_NH.device, dtype=_wide(hidden_NH.dtype))
    right = torch.zeros((), device=hidden_NH.device, dtype=torch.int64)
    for place in task.places():
        loss, logits_CV = task.loss(hidden_NH[place], place)
        total += loss.to(total)
        right += (logits_CV.argmax(-1) == task.labels_N[place].to(logits_CV.device)).sum().to(right)
    return total, right


class _WithGradients(torch.autograd.Function):
    """``forward`` computes the gradients of the sum, too; ``backward`` only scales them."""

    @staticmethod
    def forward(ctx: Any, task: Task, hidden_NH: torch.Tensor, *learning: torch.Tensor) -> torch.Tensor:
        of_hidden = ctx.needs_input_grad[1]
        total = torch.zeros((), device=hidden_NH.device, dtype=_wide(hidden_NH.dtype))
        gradient_NH = torch.empty_like(hidden_NH) if of_hidden else None
        sums = [torch.zeros_like(one, dtype=_wide(one.dtype)) for one in learning]  # bfloat16 sums would lose digits
        for place in task.places():
            part_CH = hidden_NH[place].detach().requires_grad_(of_hidden)
            with torch.enable_grad():
                logits_CV = task.logits(part_CH)
            loss, gradient_CV = task.loss_with_gradient(logits_CV, place)
            total += loss.to(total)
            wanted = [part_CH, *learning] if of_hidden else list(learning)
            found = list(torch.autograd.grad(logits_CV, wanted, gradient_CV, allow_unused=True))
            del logits_CV, gradient_CV  # before the next chunk's are made
            if gradient_NH is not None:
                gradient_NH[place] = found.pop(0)
            for summed, gradient in zip(sums, found, strict=True):
                if gradient is not None:
                    summed += gradient
        ctx.gradients = (gradient_NH, *(summed.to(one.dtype) for summed, one in zip(sums, learning, strict=True)))
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *scales: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (scale,) = scales
        gradients = ctx.gradients
        del ctx.gradients
        # in float32, because 1/N rounded to bfloat16 would bend every gradient by up to 0.4 % in the same direction
        scale = scale.to(_wide(scale.dtype))
        return None, *(
            None if one is None else (one.to(scale.dtype) * scale.to(one.device)).to(one.dtype) for one in gradients
        )


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _needs_loss_scale(hidden_NH: torch.Tensor) -> bool:
    kind = hidden_NH.device.type
    autocast = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16
    return autocast or hidden_NH.dtype == torch.float16
