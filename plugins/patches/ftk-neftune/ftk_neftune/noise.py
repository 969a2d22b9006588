"""The noise (Jain et al. 2023, algorithm 1).

Shapes: B rows, T tokens, D width of an embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from ftk import ModelError

from ftk_neftune import NeftuneOptions

if TYPE_CHECKING:
    from ftk.run import Run
    from torch import nn


def add_noise(model: Any, run: Run) -> Any:
    """The model with noise on the output of its embeddings, as long as it trains.

    Raises ModelError when nothing around the embeddings tells how long rows are.
    """
    if run.plan.one("trainer") is None:
        return model
    alpha = run.options(NeftuneOptions).neftune_noise_alpha
    embeddings = model.get_input_embeddings()
    around = [child for child in model.children() if child is not embeddings and embeddings in set(child.modules())]
    if not around:
        raise ModelError(f"{run.plan.where('neftune_noise_alpha')}: the model's embeddings could not be found")
    latest: dict[str, torch.Tensor | None] = {}

    def note_lengths(_: nn.Module, __: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        latest["lengths"] = lengths_of(named)

    def noised(module: nn.Module, _: tuple[Any, ...], output_BTD: torch.Tensor) -> torch.Tensor:
        if not module.training:
            return output_BTD
        return output_BTD + noise_like(output_BTD, latest.get("lengths"), alpha)

    # hooks are functions, not methods, so that a copy of the embeddings (modules_to_save) shares what they note
    around[0].register_forward_pre_hook(note_lengths, with_kwargs=True)
    embeddings.register_forward_hook(noised)
    return model


def lengths_of(inputs: Mapping[str, Any]) -> torch.Tensor | None:
    """(B, T): for each token how many there are in its row, or in its document when positions start again; 0 for
    padding. None when the inputs do not say."""
    mask, positions = inputs.get("attention_mask"), inputs.get("position_ids")
    if isinstance(mask, torch.Tensor) and mask.ndim == 2:
        return mask * mask.sum(1, keepdim=True)
    if isinstance(positions, torch.Tensor) and positions.ndim == 2:
        document_BT = (positions == 0).cumsum(1)
        counts = torch.zeros(len(positions), positions.shape[1] + 1, device=positions.device, dtype=torch.int64)
        counts.scatter_add_(1, document_BT, torch.ones_like(document_BT))
        return counts.gather(1, document_BT)
    return None


def noise_like(states_BTD: torch.Tensor, lengths_BT: torch.Tensor | None, alpha: float) -> torch.Tensor:
    """Uniform noise between -1 and 1 times alpha / sqrt(L D)."""
    noise_BTD = torch.empty_like(states_BTD).uniform_(-1, 1)
    width = states_BTD.shape[-1]
    if lengths_BT is None or lengths_BT.shape != states_BTD.shape[:-1]:
        return noise_BTD * (alpha / (states_BTD.shape[-2] * width) ** 0.5)
    scale_BT = torch.where(lengths_BT > 0, alpha / (lengths_BT.clamp(min=1) * width) ** 0.5, 0.0)
    return noise_BTD * scale_BT[..., None].to(noise_BTD)
