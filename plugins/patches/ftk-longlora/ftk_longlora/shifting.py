"""S2-Attn (Chen et al. 2023, section 3.2 and algorithm 1) through transformers' attention interface.

Shapes: B rows, H heads, K heads of keys and values, T tokens, G tokens of a group, N whole groups, D width of a head.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from ftk import ModelError
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ftk_longlora import LongLoraOptions

if TYPE_CHECKING:
    from ftk.run import Run

log = logging.getLogger("ftk.longlora")
Attention = Callable[..., tuple[torch.Tensor, Any]]


def patch(model: Any, run: Run) -> Any:
    """The model with shifted sparse attention in its language model, as long as that trains.

    Raises ModelError when the model computes its attention in a way of its own.
    """
    if run.plan.one("trainer") is None:
        return model
    where = run.plan.where("shift_attn")
    language = model.get_decoder()
    config = language.config
    if not type(language)._can_set_attn_implementation():
        raise ModelError(f"{where}: {config.model_type} does not use transformers' attention interface. Take it out")
    if name := _with_weights_for_heads(language, config.num_attention_heads):
        raise ModelError(f"{where}: {name} is a weight for each head, which moves with no group. Take it out")
    groups = run.options(LongLoraOptions).shift_attn_groups
    base = config._attn_implementation
    shifted = f"shifted_{groups}_{base}"
    AttentionInterface.register(shifted, _shifted(base, groups))
    AttentionMaskInterface.register(shifted, ALL_MASK_ATTENTION_FUNCTIONS[base])
    config._attn_implementation_internal = shifted  # the property would refuse a name that it does not know
    log.info("attention within %d groups while training, on top of %s", groups, base)
    return model


def _with_weights_for_heads(language: nn.Module, heads: int) -> str:
    """The name of a weight with a number for each head, for instance an attention sink; empty when there is none."""
    found = (
        name for name, one in language.named_parameters() if one.ndim == 1 and "attn" in name and len(one) == heads
    )
    return next((name for name in found if not name.endswith("bias")), "")


def _shifted(base: str, groups: int) -> Attention:
    def attend(
        module: nn.Module,
        query_BHTD: torch.Tensor,
        key_BKTD: torch.Tensor,
        value_BKTD: torch.Tensor,
        attention_mask: torch.Tensor | None,
        **named: Any,
    ) -> tuple[torch.Tensor, Any]:
        own = _attention(base, module)
        length = query_BHTD.shape[2]
        causal = named.get("is_causal")
        causal = getattr(module, "is_causal", True) if causal is None else causal
        if not module.training or not causal or key_BKTD.shape[2] != length or length < 2 * groups:
            return own(module, query_BHTD, key_BKTD, value_BKTD, attention_mask, **named)
        return grouped_attention(own, module, (query_BHTD, key_BKTD, value_BKTD), attention_mask, groups, **named)

    return attend


def _attention(base: str, module: nn.Module) -> Attention:
    """The function that a model would use; ``eager`` is one of each model's own file."""
    if base in ALL_ATTENTION_FUNCTIONS:
        found: Attention = ALL_ATTENTION_FUNCTIONS[base]
        return found
    return getattr(sys.modules[type(module).__module__], f"{base}_attention_forward")  # type: ignore[no-any-return]


def grouped_attention(
    own: Attention,
    module: nn.Module,
    states: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    mask: torch.Tensor | None,
    groups: int,
    **named: Any,
) -> tuple[torch.Tensor, None]:
    """(B, T, H, D): the first half of the heads in groups of T / ``groups`` tokens, the second half in moved ones.

    states: queries (B, H, T, D), keys and values (B, K, T, D). mask: (B or 1, H or 1, T, T), bool (who is seen) or what
    is added; None is causal.
    """
    query, key, value = states
    size = -(-query.shape[2] // groups)
    half, half_of_keys = query.shape[1] // 2, key.shape[1] // 2
    if key.shape[1] % 2:  # one head of keys serves both halves
        times = query.shape[1] // key.shape[1]
        key, value, module = (*(one.repeat_interleave(times, dim=1) for one in (key, value)), _WithoutGroups(module))
        half_of_keys = half
    outputs = []
    for heads, of_keys, first in (
        (slice(0, half), slice(0, half_of_keys), 0),
        (slice(half, None), slice(half_of_keys, None), size // 2),
    ):
        part = (query[:, heads], key[:, of_keys], value[:, of_keys])
        seen = mask[:, heads] if mask is not None and mask.shape[1] > 1 else mask
        pieces = [
            _apart(own(module, *(_together(one, place, size) for one in part), _block(seen, place, size), **named)[0],
                   len(query))
            for place in _places(query.shape[2], first, size)
        ]  # fmt: skip
        outputs.append(torch.cat(pieces, dim=1))
    return torch.cat(outputs, dim=2), None


def _places(length: int, first: int, size: int) -> Iterator[slice]:
    """What is computed in one call: a first, shorter group, all whole groups, what is left over."""
    end = first + (length - first) // size * size
    for start, stop in ((0, first), (first, end), (end, length)):
        if start < stop:
            yield slice(start, stop)


def _together(states: torch.Tensor, place: slice, size: int) -> torch.Tensor:
    """(B, H, N G, D) → (B N, H, G, D): groups become rows."""
    part = states[:, :, place]
    batch, heads, length, width = part.shape
    size = min(size, length)
    return part.view(batch, heads, length // size, size, width).transpose(1, 2).flatten(0, 1) if length > size else part


def _apart(output: torch.Tensor, batch: int) -> torch.Tensor:
    """(B N, G, H, D) → (B, N G, H, D)."""
    return output.unflatten(0, (batch, -1)).flatten(1, 2)


def _block(mask: torch.Tensor | None, place: slice, size: int) -> torch.Tensor | None:
    """What of a mask concerns the groups, (B N, H or 1, G, G). Every token sees itself: a group of padding must see
    something, or its softmax is no number."""
    if mask is None:
        return None
    part = mask[:, :, place, place]
    batch, heads, length, _ = part.shape
    size = min(size, length)
    blocks = part.reshape(batch, heads, length // size, size, length // size, size).diagonal(dim1=2, dim2=4)
    blocks = blocks.permute(0, 4, 1, 2, 3).flatten(0, 1)
    itself = torch.eye(size, dtype=torch.bool, device=mask.device)
    return blocks | itself if mask.dtype == torch.bool else blocks.masked_fill(itself, 0)


class _WithoutGroups:
    """An attention module as its function sees it once keys have as many heads as queries."""

    num_key_value_groups = 1

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)
