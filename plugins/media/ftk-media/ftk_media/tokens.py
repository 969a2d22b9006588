"""A batch held against the media that its rows show.

Shapes: B rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from ftk import DataError

from ftk_media.files import shown

if TYPE_CHECKING:
    from ftk.types import Media

IGNORED = -100
"""The label of a token that is not trained."""


def untrained(batch: Mapping[str, Any], token_ids: Collection[int]) -> dict[str, torch.Tensor]:
    """The batch's ``labels`` (B, T) without those of some tokens, under that name; nothing when none was trained."""
    if "labels" not in batch:
        return {}
    labels_BT = batch["labels"]
    wrong_BT = torch.isin(labels_BT, torch.tensor(sorted(token_ids)))
    return {"labels": labels_BT.masked_fill(wrong_BT, IGNORED)} if wrong_BT.any() else {}


def check_counts(
    input_ids_BT: torch.Tensor, token_id: int, media: Sequence[Sequence[Media]], counts: Sequence[Sequence[int]]
) -> None:
    """Hold the number of media tokens in each row against ``counts``, the tokens of each medium that it shows.

    Raises DataError that names the media of the first row that differs.
    """
    found_B = (input_ids_BT == token_id).sum(dim=1).tolist()
    for found, shows, numbers in zip(found_B, media, counts, strict=True):
        if found != sum(numbers):
            what = ", ".join(shown(one) for one in shows) or "nothing"
            raise DataError(
                f"a row has {found} media tokens and shows {what}, of {sum(numbers)} tokens. Has a file changed since "
                "the rows were made? Set overwrite_cache: true to make them again"
            )
