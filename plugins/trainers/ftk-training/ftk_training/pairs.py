"""Rows of pairs → one batch: each answer with its prompt by itself, or both answers of a pair behind one prompt.

What a loss needs of a batch does not depend on how it is laid out: which position predicts which token of which text
(:func:`pair_targets`), and where each text ends (:func:`text_ends`). Of P pairs there are 2 P texts: the chosen ones
from 0, the rejected ones from P.

Behind a shared prompt, both answers stand in one row, each with the positions that it would have by itself, and a mask
(B, 1, T, T) lets each see the prompt and itself, and not the other. What they begin with in common is shared as well.

Shapes: B rows, T tokens, N trained tokens, P pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ftk_training.collator import IGNORED, Collator
from ftk_training.logprobs import Targets, targets_of

Batch = dict[str, torch.Tensor]
Pair = Mapping[str, Any]
Extra = Callable[[Sequence[Pair]], Mapping[str, torch.Tensor]]
"""``extra(pairs) -> what a batch of them has besides``."""

SIDES = ("chosen", "rejected")
PADDING = -1
OF_PAIRS = (
    "pair_numbers", "num_tokens", "branches", "target_rows", "target_positions", "target_labels", "target_texts",
    "target_weights", "end_rows", "end_positions",
)  # fmt: skip
"""Keys of a batch that no model is given."""


class Text(NamedTuple):
    """One answer with its prompt. weights_T: how much each token counts, None when all count 1."""

    ids_T: NDArray[np.int64]
    labels_T: NDArray[np.int64]
    weights_T: NDArray[np.float32] | None = None
    media: tuple[Any, ...] = ()


def text_of(pair: Pair, side: str) -> Text:
    """The ``chosen`` or the ``rejected`` text of a pair."""
    weights, media = pair.get(f"{side}_loss_weights"), tuple(pair.get(f"{side}_media", ()))
    return Text(np.asarray(pair[f"{side}_input_ids"]), np.asarray(pair[f"{side}_labels"]), weights, media)


def pairs_of(rows: Sequence[Mapping[str, Any]]) -> list[list[Pair]]:
    """The pairs of each row: one, or those of a pack."""
    return [list(row["pairs"]) if "pairs" in row else [row] for row in rows]


@dataclass(frozen=True)
class PairCollator:
    """base: pads the rows, lays them out flat, reads media. shared: prompts are computed once for both answers; a batch
    with media never is. extra: see :data:`Extra`.
    """

    base: Collator
    shared: bool = False
    extra: Extra | None = None

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> Batch:
        """``pair_numbers`` (P,) first; the rest is read with the functions of this module."""
        packs = pairs_of(rows)
        pairs = [pair for pack in packs for pair in pack]
        batch = {"pair_numbers": torch.arange(len(pairs)), "num_tokens": torch.tensor([_num_tokens(pairs)])}
        media = any(pair.get(f"{side}_media") for pair in pairs for side in SIDES)
        batch |= self._behind_prompts(packs) if self.shared and not media else self._apart(packs)
        return batch | dict(self.extra(pairs)) if self.extra else batch

    def _apart(self, packs: Sequence[Sequence[Pair]]) -> Batch:
        """Rows of texts: the chosen ones of each pack, then the rejected ones."""
        texts = [[text_of(pair, side) for pair in pack] for side in SIDES for pack in packs]
        batch = self.base([_row(one) for one in texts])
        made = [[text for row in texts for text in row]] if self.base.flat else texts
        texts_BT = torch.zeros_like(batch["input_ids"])
        end_rows, end_positions, number = [], [], 0
        for row, members in enumerate(made):
            first = 0
            for text in members:
                texts_BT[row, first : first + len(text.ids_T)] = number
                first, number = first + len(text.ids_T), number + 1
                end_rows.append(row)
                end_positions.append(first - 1)
        targets = targets_of({"labels": batch.pop("labels"), "texts": texts_BT})
        if (weights_BT := batch.pop("loss_weights", None)) is not None:
            batch["target_weights"] = weights_BT[targets.rows_N, targets.positions_N + 1]
        return batch | {
            "target_rows": targets.rows_N, "target_positions": targets.positions_N, "target_labels": targets.tokens_N,
            "target_texts": targets.texts_N, "end_rows": torch.tensor(end_rows),
            "end_positions": torch.tensor(end_positions),
        }  # fmt: skip

    def _behind_prompts(self, packs: Sequence[Sequence[Pair]]) -> Batch:
        """Rows of pairs: what both texts begin with, the rest of the chosen one, the rest of the rejected one."""
        num_pairs = sum(map(len, packs))
        placed = [[_Placed(text_of(pair, "chosen"), text_of(pair, "rejected")) for pair in pack] for pack in packs]
        longest = max(sum(pair.size for pair in row) for row in placed)
        width = -(-longest // self.base.multiple) * self.base.multiple
        ids_BT = np.full((len(placed), width), self.base.pad_id, np.int64)
        positions_BT, branches_BT = np.zeros_like(ids_BT), np.full_like(ids_BT, PADDING)
        found: dict[int, list[NDArray[Any]]] = {}
        ends = np.zeros((2 * num_pairs, 2), np.int64)
        number = 0
        for row, members in enumerate(placed):
            first = 0
            for pair in members:
                span = slice(first, first + pair.size)
                ids_BT[row, span], positions_BT[row, span] = pair.ids_T, pair.positions_T
                branches_BT[row, span] = 3 * number + pair.branches_T
                for side in (0, 1):
                    text = number + side * num_pairs
                    found[text] = [np.full(len(pair.targets(side)[0]), row), first + pair.targets(side)[0]]
                    found[text] += [*pair.targets(side)[1:], np.full(len(pair.targets(side)[0]), text)]
                    ends[text] = row, first + pair.end(side)
                first, number = first + pair.size, number + 1
        columns = [np.concatenate(column) for column in zip(*(found[text] for text in sorted(found)), strict=True)]
        rows_N, at_N, tokens_N, weights_N, texts_N = map(torch.from_numpy, columns)
        batch = {
            "input_ids": torch.from_numpy(ids_BT), "position_ids": torch.from_numpy(positions_BT),
            "branches": torch.from_numpy(branches_BT), "target_rows": rows_N, "target_positions": at_N,
            "target_labels": tokens_N, "target_texts": texts_N, "end_rows": torch.from_numpy(ends[:, 0]),
            "end_positions": torch.from_numpy(ends[:, 1]),
        }  # fmt: skip
        return batch | ({"target_weights": weights_N} if (weights_N != 1).any() else {})


class _Placed:
    """A pair in its stretch of a row: the common tokens, then the rest of each text."""

    def __init__(self, chosen: Text, rejected: Text) -> None:
        self.texts = (chosen, rejected)
        self.common = common_length(chosen, rejected)
        self.rests = tuple(len(text.ids_T) - self.common for text in self.texts)
        self.size = self.common + sum(self.rests)

    @property
    def ids_T(self) -> NDArray[np.int64]:
        chosen, rejected = self.texts
        return np.concatenate((chosen.ids_T, rejected.ids_T[self.common :]))

    @property
    def positions_T(self) -> NDArray[np.int64]:
        chosen, rejected = (len(text.ids_T) for text in self.texts)
        return np.concatenate((np.arange(chosen), np.arange(self.common, rejected)))

    @property
    def branches_T(self) -> NDArray[np.int64]:
        """0 for what is common, 1 and 2 for the rests."""
        return np.repeat(np.arange(3), (self.common, *self.rests))

    def places(self, side: int) -> NDArray[np.int64]:
        """Where in the stretch each token of a text stands."""
        after = self.common + (self.rests[0] if side else 0)
        return np.concatenate((np.arange(self.common), np.arange(after, after + self.rests[side])))

    def targets(self, side: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """(predicting place, token, weight) of each trained token of a text."""
        text = self.texts[side]
        trained = np.flatnonzero(text.labels_T[1:] != IGNORED) + 1
        weights = np.ones(len(trained), np.float32) if text.weights_T is None else text.weights_T[trained]
        return self.places(side)[trained - 1], text.ids_T[trained], weights

    def end(self, side: int) -> int:
        return int(self.places(side)[-1])


def common_length(chosen: Text, rejected: Text) -> int:
    """How many tokens both texts begin with."""
    size = min(len(chosen.ids_T), len(rejected.ids_T))
    differ = np.flatnonzero(chosen.ids_T[:size] != rejected.ids_T[:size])
    return int(differ[0]) if len(differ) else size


def _num_tokens(pairs: Sequence[Pair]) -> int:
    """Tokens of all texts, each with its prompt, however they are laid out."""
    return sum(len(pair[f"{side}_input_ids"]) for pair in pairs for side in SIDES)


def _row(texts: Sequence[Text]) -> dict[str, Any]:
    """Texts as one row for a collator; several are documents of it."""
    made: dict[str, Any] = {
        "input_ids": np.concatenate([text.ids_T for text in texts]),
        "labels": np.concatenate([text.labels_T for text in texts]),
    }
    if len(texts) > 1:
        made["position_ids"] = np.concatenate([np.arange(len(text.ids_T)) for text in texts])
    if any(text.weights_T is not None for text in texts):
        ones = [np.ones(len(text.ids_T), np.float32) if text.weights_T is None else text.weights_T for text in texts]
        made["loss_weights"] = np.concatenate(ones)
    if media := tuple(one for text in texts for one in text.media):
        made["media"] = media
    return made


def num_pairs(batch: Mapping[str, torch.Tensor]) -> int:
    """P."""
    return len(batch["pair_numbers"])


def pair_targets(batch: Mapping[str, torch.Tensor]) -> Targets:
    """Which position predicts which token of which text, by text."""
    return Targets(
        batch["target_rows"], batch["target_positions"], batch["target_labels"], batch["target_texts"],
        2 * num_pairs(batch),
    )  # fmt: skip


def text_ends(batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """(rows, positions) of the last token of each text, (2 P,) each."""
    return batch["end_rows"], batch["end_positions"]


def pair_inputs(batch: Mapping[str, torch.Tensor], *, additive: torch.dtype | None = None) -> Batch:
    """The arguments of the model's ``forward``.

    additive: the mask of shared prompts holds numbers of this type that are added to scores, as eager attention wants
    it, instead of whether one token sees another.
    """
    inputs = {key: value for key, value in batch.items() if key not in OF_PAIRS and not key.startswith("ref_")}
    if "branches" in batch:
        inputs["attention_mask"] = branch_mask(batch["branches"], additive)
    return inputs


def branch_mask(branches_BT: torch.Tensor, additive: torch.dtype | None = None) -> torch.Tensor:
    """(B, 1, T, T): a token sees what stands before it in its own branch and in what is common to its pair."""
    pairs_BT, common_BT = branches_BT.div(3, rounding_mode="floor"), branches_BT % 3 == 0
    own = branches_BT[:, :, None] == branches_BT[:, None, :]
    common = (pairs_BT[:, :, None] == pairs_BT[:, None, :]) & common_BT[:, None, :]
    seen = ((own | common).tril())[:, None]
    if additive is None:
        return seen
    hidden = torch.finfo(additive).min
    return torch.zeros(seen.shape, dtype=additive, device=seen.device).masked_fill(~seen, hidden)
