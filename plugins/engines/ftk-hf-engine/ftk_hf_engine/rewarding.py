"""Rewards of conversations, by a model with a value head. Shapes: B conversations, T tokens of the longest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from ftk_training.value_head import attach, beside, head_of, put, values

if TYPE_CHECKING:
    from ftk.run import Run

    from ftk_hf_engine.scoring import Answered, Placed


@torch.no_grad()
def rewards(model: Any, run: Run | None, rows: Sequence[Answered], pad_id: int, placed: Placed) -> list[float]:
    """The value at the last token of each conversation, padded on the right as one batch.

    A model without a value head gets the one that lies beside what ``run`` has loaded. Raises ModelError when there is
    none.
    """
    if run is not None and head_of(model) is None and (state := beside(run)) is not None:
        put(attach(model), state, str(run.model_path))
    lengths_B = torch.tensor([len(row.tokens) for row in rows])
    width = int(lengths_B.max())
    ids_BT = torch.tensor([[*row.tokens, *[pad_id] * (width - len(row.tokens))] for row in rows])
    mask_BT = (torch.arange(width) < lengths_B[:, None]).long()
    inputs = placed({"input_ids": ids_BT, "attention_mask": mask_BT}, [row.media for row in rows])
    values_BT = values(model, inputs).cpu()
    return [float(value) for value in values_BT[torch.arange(len(rows)), lengths_B - 1]]
