"""A block behind a router (Raposo et al. 2024, section 3).

Shapes: B rows, T tokens, K tokens that go through the block (of a row at most), H width of the hidden states.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import torch
from ftk import ModelError
from torch import nn
from torch.nn import functional


class Router(nn.Module):
    """Scores tokens, and predicts which of them will be among the best.

    The score is a projection to a number (section 3.4); the predictor a small MLP that sees the states cut off from the
    graph (section 3.5), so that it changes nothing but itself.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, 1, bias=False)
        self.predict = nn.Sequential(nn.Linear(width, max(1, width // 8)), nn.SiLU(), nn.Linear(max(1, width // 8), 1))

    def forward(self, hidden_BTH: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, T) scores, and logits of being chosen."""
        return self.score(hidden_BTH)[..., 0], self.predict(hidden_BTH.detach())[..., 0]


def best(scores_BT: torch.Tensor, valid_BT: torch.Tensor, capacity: float) -> torch.Tensor:
    """(B, T) bool: in each row the floor(capacity x length) tokens of the highest scores. Padding is no part of it."""
    share = Fraction(str(capacity))  # as it was written: 0.42 x 150 is 63, which floats make 62
    counts_B = valid_BT.sum(1) * share.numerator // share.denominator
    order_BT = (
        scores_BT.detach().float().masked_fill(~valid_BT, -torch.inf).argsort(dim=1, descending=True, stable=True)
    )
    taken_BT = torch.arange(scores_BT.shape[1], device=scores_BT.device) < counts_B[:, None]
    return torch.zeros_like(valid_BT).scatter(1, order_BT, taken_BT)


class Routed:
    """The ``forward`` of a block with a router. own: the block's ``forward`` as a function.

    share: weight of the predictor's loss in the gradient: one over the batches of a step, since the losses of a step's
    batches add up.
    """

    def __init__(self, own: Callable[..., Any], capacity: float, share: float) -> None:
        self.own, self.capacity, self.share = own, capacity, share

    def __call__(self, block: Any, hidden_BTH: torch.Tensor, *rest: Any, **named: Any) -> Any:
        """What the block returns, with all tokens in it."""
        length = hidden_BTH.shape[1]
        _refuse_cache([*rest, *named.values()], length)
        scores_BT, logits_BT = block.mod_router(hidden_BTH)
        valid_BT = _valid([*rest, *named.values()], named.get("attention_mask"), hidden_BTH)
        chosen_BT = best(scores_BT, valid_BT, self.capacity) if block.training else (logits_BT > 0) & valid_BT
        counts_B = chosen_BT.sum(1)
        width = int(counts_B.max())
        if width:
            place_BK = (~chosen_BT).to(torch.int8).argsort(dim=1, stable=True)[:, :width]  # in their order
            real_BK = torch.arange(width, device=counts_B.device) < counts_B[:, None]
            part_BKH = _taken(hidden_BTH, place_BK)
            output = self.own(
                block, part_BKH, *_picked(rest, place_BK, length), **_picked(named, place_BK, length)
            )  # fmt: skip
            output_BKH = output[0] if isinstance(output, tuple) else output
            added_BKH = (output_BKH - part_BKH) * (scores_BT.gather(1, place_BK) * real_BK)[..., None]
            result_BTH = hidden_BTH.scatter_add(1, place_BK[..., None].expand_as(added_BKH), added_BKH.to(hidden_BTH))
            rest_of_output = output[1:] if isinstance(output, tuple) else None
        else:
            result_BTH, rest_of_output = hidden_BTH, None
        if block.training and torch.is_grad_enabled():
            loss = functional.binary_cross_entropy_with_logits(logits_BT[valid_BT].float(), chosen_BT[valid_BT].float())
            result_BTH = _Beside.apply(result_BTH, loss * self.share)
        return result_BTH if rest_of_output is None else (result_BTH, *rest_of_output)


class _Beside(torch.autograd.Function):
    """Hands states on; on the way back a loss that is reported nowhere gets its gradient, too."""

    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, loss: torch.Tensor) -> torch.Tensor:
        ctx.like = loss
        return states.view_as(states)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return gradients[0], torch.ones_like(ctx.like)


def _refuse_cache(arguments: list[Any], length: int) -> None:
    """Raises ModelError when earlier tokens are kept: of each row the block has seen others, and not all of them."""
    for one in arguments:
        earlier = isinstance(one, torch.Tensor) and one.ndim == 4 and one.shape[-2] == length != one.shape[-1]
        if earlier or hasattr(one, "get_seq_length"):
            raise ModelError("mixture_of_depths: answers are made without a cache. Leave use_cache out, or say false")


def _valid(arguments: list[Any], mask: Any, hidden_BTH: torch.Tensor) -> torch.Tensor:
    """(B, T) bool: which tokens are no padding: those that see themselves in a mask of pairs, or those of ``mask``."""
    batch, length = hidden_BTH.shape[:2]
    for one in arguments:
        if isinstance(one, torch.Tensor) and one.ndim == 4 and one.shape[-2:] == (length, length):
            itself = one[:, 0].diagonal(dim1=-2, dim2=-1)
            return (itself if itself.dtype == torch.bool else itself == 0).expand(batch, length)
    if isinstance(mask, torch.Tensor) and mask.shape == (batch, length):
        return mask.bool()
    return torch.ones(batch, length, dtype=torch.bool, device=hidden_BTH.device)


def _taken(states: torch.Tensor, place_BK: torch.Tensor) -> torch.Tensor:
    """What of (B or 1, T, ...) belongs to the places."""
    states = states.expand(len(place_BK), *states.shape[1:])
    place = place_BK.view(*place_BK.shape, *[1] * (states.ndim - 2))
    return states.gather(1, place.expand(*place_BK.shape, *states.shape[2:]))


def _picked(value: Any, place_BK: torch.Tensor, length: int) -> Any:
    """The arguments of a block for the tokens that go through it: whatever has an entry for each token is reduced."""
    if isinstance(value, dict):
        return {name: _picked(one, place_BK, length) for name, one in value.items()}
    if isinstance(value, tuple):
        return tuple(_picked(one, place_BK, length) for one in value)
    if not isinstance(value, torch.Tensor):
        return value
    if value.ndim == 4 and value.shape[-2:] == (length, length):
        return _picked_mask(value, place_BK)
    if value.ndim > 1 and value.shape[1] == length:
        return _taken(value, place_BK)
    return value[: place_BK.shape[1]] if value.ndim == 1 and len(value) == length else value


def _picked_mask(mask: torch.Tensor, place_BK: torch.Tensor) -> torch.Tensor:
    """(B, 1 or heads, K, K). Places that only fill a row come last, so what comes later is never seen; all see
    themselves, so that no softmax is over nothing."""
    batch, width = place_BK.shape
    mask = mask.expand(batch, *mask.shape[1:])
    rows = mask.gather(2, place_BK[:, None, :, None].expand(batch, mask.shape[1], width, mask.shape[3]))
    picked = rows.gather(3, place_BK[:, None, None, :].expand(batch, mask.shape[1], width, width))
    later = torch.ones(width, width, dtype=torch.bool, device=mask.device).triu(1)
    itself = torch.eye(width, dtype=torch.bool, device=mask.device)
    if mask.dtype == torch.bool:
        return (picked & ~later) | itself
    return picked.masked_fill(later, torch.finfo(mask.dtype).min).masked_fill(itself, 0)
