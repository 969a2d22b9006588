"""Keys and values of answers that are made together, joined and parted while they are made.

Every row ends in the same column, so a row that is shorter than others is padded on the left, which the attention mask
says. Shapes: B rows, H heads, C columns that there is room for, T columns in use, D width of a head.
"""

from __future__ import annotations

import torch
from transformers.cache_utils import Cache, DynamicLayer

ROOM = 64
"""Columns that are made at a time; growing copies everything."""


class JoinedLayer(DynamicLayer):
    """A layer of full attention that writes new columns in place instead of copying all of them for each token.

    It keeps whole rows for layers with a sliding window, too; the mask hides what lies before the window.
    """

    def __init__(self) -> None:
        super().__init__()
        self.length = 0

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write new columns (B, H, new, D) behind the others and return all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = (_room(one, ROOM) for one in (key_states, value_states))
            self.length = key_states.shape[-2]
        else:
            end = self.length + key_states.shape[-2]
            if end > self.keys.shape[-2]:
                room = max(ROOM, self.length // 2)
                self.keys, self.values = (_room(one[..., : self.length, :], room) for one in (self.keys, self.values))
            self.keys[..., self.length : end, :] = key_states
            self.values[..., self.length : end, :] = value_states
            self.length = end
        return self.keys[..., : self.length, :], self.values[..., : self.length, :]

    def get_seq_length(self) -> int:
        return self.length

    def keep(self, rows_B: torch.Tensor, first: int) -> None:
        """Leave these rows, without the columns before ``first``."""
        self.keys, self.values = (one[rows_B, :, first : self.length] for one in (self.keys, self.values))
        self.length -= first

    def join(self, other: JoinedLayer) -> None:
        """Put the rows of another layer below these."""
        width = max(self.length, other.length)
        self.keys, self.values = (
            torch.cat([_moved(mine[..., : self.length, :], width), _moved(its[..., : other.length, :], width)])
            for mine, its in ((self.keys, other.keys), (self.values, other.values))
        )
        self.length = width


def _room(states_BHTD: torch.Tensor, more: int) -> torch.Tensor:
    return torch.nn.functional.pad(states_BHTD, (0, 0, 0, more))


def _moved(states_BHTD: torch.Tensor, width: int) -> torch.Tensor:
    return torch.nn.functional.pad(states_BHTD, (0, 0, width - states_BHTD.shape[-2], 0))


class JoinedCache(Cache):
    """The layers of a model and ``mask_BT``, which says what of the columns is padding."""

    def __init__(self, mask_BT: torch.Tensor) -> None:
        super().__init__(layer_class_to_replicate=JoinedLayer)
        self.mask_BT = mask_BT

    def next_column(self) -> torch.Tensor:
        """The mask (B, T) with one more column, which all rows use."""
        self.mask_BT = torch.nn.functional.pad(self.mask_BT, (0, 1), value=1)
        return self.mask_BT

    def keep(self, rows: list[int]) -> None:
        """Leave these rows, and the columns that any of them uses."""
        rows_B = torch.tensor(rows, device=self.mask_BT.device)
        mask_BT = self.mask_BT[rows_B]
        first = int(mask_BT.any(dim=0).int().argmax())
        self.mask_BT = mask_BT[:, first:]
        for layer in self.layers:
            layer.keep(rows_B, first)

    def join(self, other: JoinedCache) -> None:
        """Put the rows of another cache of the same model below these."""
        width = max(self.mask_BT.shape[1], other.mask_BT.shape[1])
        self.mask_BT = torch.cat(
            [torch.nn.functional.pad(mask, (width - mask.shape[1], 0)) for mask in (self.mask_BT, other.mask_BT)]
        )
        for mine, its in zip(self.layers, other.layers, strict=True):
            mine.join(its)
