"""Log-probabilities of the trained tokens of a batch, with logits only where somebody learns.

A model computes a vector as long as its vocabulary for each token that enters its output layer. So what enters it is
cut down to the N positions that predict a trained token, by a hook on that layer: whatever the model does to logits
afterwards (soft capping, scaling) is still done by its own code.

Shapes: B rows, T tokens, N trained tokens, R texts, H width of the hidden states, V words. A text is a row of a padded
batch, or a document of a packed or flat one (see ``ftk_training.collator.Collator``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ftk_training.collator import IGNORED

Batch = Mapping[str, torch.Tensor]

OF_LOSS = ("labels", "loss_weights", "shift_labels", "logits_to_keep", "texts", "num_tokens")
"""Keys of a batch that no model is given here."""
CHUNK = 2**22
"""So many logits are made float32 at a time."""


@dataclass(frozen=True)
class Targets:
    """Which position predicts which token. Position ``positions_N`` of row ``rows_N`` predicts ``tokens_N``.

    texts_N: the text, from 0 to ``num_texts`` - 1, that the predicted token belongs to. One position may predict tokens
    of several texts, when those share what comes before.
    """

    rows_N: torch.Tensor
    positions_N: torch.Tensor
    tokens_N: torch.Tensor
    texts_N: torch.Tensor
    num_texts: int

    def __len__(self) -> int:
        return len(self.tokens_N)


@dataclass(frozen=True)
class LogProbs:
    """Natural logarithms of the probability of each trained token, float32, with a gradient where the model has one.

    balance: what a mixture of experts that was asked to (``output_router_logits``) adds to a mean loss.
    """

    tokens_N: torch.Tensor
    texts_N: torch.Tensor
    num_texts: int
    balance: torch.Tensor | None = None

    @property
    def sums_R(self) -> torch.Tensor:
        """log p of each text's trained tokens given what precedes them; 0 for a text without any."""
        return self.total(self.tokens_N)

    @property
    def counts_R(self) -> torch.Tensor:
        """How many trained tokens each text has, float32."""
        return self.total(torch.ones_like(self.tokens_N))

    @property
    def means_R(self) -> torch.Tensor:
        """The mean over a text's trained tokens; 0 for a text without any."""
        return self.sums_R / self.counts_R.clamp(min=1)

    def total(self, values_N: torch.Tensor) -> torch.Tensor:
        """(R,): what belongs to each text, summed."""
        return values_N.new_zeros(self.num_texts).index_add(0, self.texts_N, values_N)

    @property
    def ranks_N(self) -> torch.Tensor:
        """Of each trained token, how many of its text come before it."""
        order = torch.argsort(self.texts_N, stable=True)
        counts_R = torch.bincount(self.texts_N, minlength=self.num_texts)
        firsts_R = counts_R.cumsum(0) - counts_R
        ranks = torch.arange(len(order), device=order.device) - firsts_R[self.texts_N[order]]
        return torch.empty_like(ranks).scatter(0, order, ranks)


def log_probs(model: nn.Module, batch: Batch, *, temperature: float = 1.0) -> LogProbs:
    """Those of the tokens that ``batch["labels"]`` (B, T), not shifted, names.

    ``batch["texts"]`` (B, T) says which text each token is of; without it, see :func:`targets_of`.
    temperature: logits are divided by it, as when the tokens were sampled.
    """
    targets = targets_of(batch)
    return target_log_probs(model, model_inputs(batch), targets, temperature=temperature)


def model_inputs(batch: Batch) -> dict[str, torch.Tensor]:
    """What of a batch is given to the model."""
    return {key: value for key, value in batch.items() if key not in OF_LOSS}


def targets_of(batch: Batch) -> Targets:
    """The targets of a batch of labelled rows: each trained token is predicted by the position before it.

    Without ``texts`` each row is one; but in a batch whose rows hold several, which has 2-dimensional ``position_ids``
    and no ``attention_mask``, each document is, row by row, padding behind the last one included.
    """
    labels_BT = batch["labels"]
    texts_BT = batch.get("texts")
    if texts_BT is None:
        texts_BT = _texts(batch, labels_BT)
    rows_N, positions_N = (labels_BT[:, 1:] != IGNORED).nonzero(as_tuple=True)
    texts_N = texts_BT[rows_N, positions_N + 1]
    num_texts = int(texts_BT.max()) + 1
    return Targets(rows_N, positions_N, labels_BT[rows_N, positions_N + 1], texts_N, num_texts)


def _texts(batch: Batch, labels_BT: torch.Tensor) -> torch.Tensor:
    positions = batch.get("position_ids")
    if positions is None or positions.dim() != 2 or "attention_mask" in batch:
        return torch.arange(len(labels_BT), device=labels_BT.device)[:, None].expand_as(labels_BT)
    return (positions == 0).flatten().cumsum(0).view_as(positions) - 1


def target_log_probs(
    model: nn.Module, inputs: Mapping[str, Any], targets: Targets, *, temperature: float = 1.0
) -> LogProbs:
    """The same for targets that are already known. inputs: the arguments of the model's ``forward``, without labels."""
    logits_NV, outputs = _ran(model, inputs, targets)
    if temperature != 1.0:
        logits_NV = logits_NV / temperature
    tokens_N = chosen_log_probs(logits_NV, targets.tokens_N)
    return LogProbs(tokens_N, targets.texts_N, targets.num_texts, _balance(model, outputs))


def target_logits(model: nn.Module, inputs: Mapping[str, Any], targets: Targets) -> torch.Tensor:
    """(N, V): the logits at the positions of the targets, in the model's own precision."""
    return _ran(model, inputs, targets)[0]


def _ran(model: nn.Module, inputs: Mapping[str, Any], targets: Targets) -> tuple[torch.Tensor, Any]:
    rows_N, positions_N = targets.rows_N, targets.positions_N
    if not len(targets):  # the model must be gone through all the same, for processes that wait for each other
        rows_N = positions_N = rows_N.new_zeros(1)
    num_tokens = inputs["input_ids"].shape[1]
    with _only(model, rows_N, positions_N, num_tokens) as cut:
        outputs = model(**inputs)
    logits = outputs.logits
    # uncut, the model has no output layer that is known as such
    made_NV = logits[0] if cut else logits[rows_N, positions_N + logits.shape[1] - num_tokens]
    return made_NV[: len(targets)], outputs


def _balance(model: nn.Module, outputs: Any) -> torch.Tensor | None:
    balance = getattr(outputs, "aux_loss", None)
    if not isinstance(balance, torch.Tensor):
        return None
    config = _unwrapped(model).config.get_text_config()
    made: torch.Tensor = getattr(config, "router_aux_loss_coef", 0.0) * balance
    return made


@contextmanager
def _only(model: nn.Module, rows_N: torch.Tensor, positions_N: torch.Tensor, num_tokens: int) -> Iterator[list[bool]]:
    """Let only those positions into the output layer, as one row of N. The list is not empty afterwards when it did.

    An adapter may have put tokens in front of each row, so positions count from the end.
    """
    layer, cut = _output_layer(model), list[bool]()

    def select(_: nn.Module, arguments: tuple[Any, ...]) -> Any:
        if not arguments or arguments[0].dim() != 3:
            return None
        hidden_BTH = arguments[0]
        cut.append(True)
        return (hidden_BTH[rows_N, positions_N + hidden_BTH.shape[1] - num_tokens][None], *arguments[1:])

    handle = layer.register_forward_pre_hook(select) if layer is not None else None
    try:
        yield cut
    finally:
        if handle is not None:
            handle.remove()


def _unwrapped(model: nn.Module) -> Any:
    inner = getattr(model, "module", model)
    return getattr(inner, "_orig_mod", inner)


def _output_layer(model: nn.Module) -> nn.Module | None:
    if isinstance(model, nn.DataParallel):  # which hands each of its copies a part of the rows
        return None
    inner = _unwrapped(model)
    layer = inner.get_output_embeddings() if hasattr(inner, "get_output_embeddings") else None
    return layer if isinstance(layer, nn.Module) else None


def chosen_log_probs(logits_NV: torch.Tensor, tokens_N: torch.Tensor) -> torch.Tensor:
    """(N,) float32: ``log_softmax(logits)[token]``. Makes a part of the logits float32 at a time, never all."""
    made: torch.Tensor = _ChosenLogProbs.apply(logits_NV, tokens_N)
    return made


class _ChosenLogProbs(torch.autograd.Function):
    """d log p(y) / d logit(v) = [v = y] - p(v). Keeps the logits as they are and no probabilities."""

    @staticmethod
    def forward(context: Any, logits_NV: torch.Tensor, tokens_N: torch.Tensor) -> torch.Tensor:
        totals_N = torch.empty(len(logits_NV), dtype=torch.float32, device=logits_NV.device)
        for part in _parts(logits_NV):
            totals_N[part] = logits_NV[part].float().logsumexp(dim=-1)
        context.save_for_backward(logits_NV, tokens_N, totals_N)
        return logits_NV.gather(1, tokens_N[:, None])[:, 0].float() - totals_N

    @staticmethod
    def backward(context: Any, gradient_N: torch.Tensor) -> Any:  # type: ignore[override]
        logits_NV, tokens_N, totals_N = context.saved_tensors
        gradient_NV = torch.empty_like(logits_NV)
        for part in _parts(logits_NV):
            pulls = (logits_NV[part].float() - totals_N[part, None]).exp_().mul_(-gradient_N[part, None])
            gradient_NV[part] = pulls.scatter_add_(1, tokens_N[part, None], gradient_N[part, None].float())
        return gradient_NV, None


def _parts(logits_NV: torch.Tensor) -> list[slice]:
    size = max(1, CHUNK // logits_NV.shape[1])
    return [slice(first, first + size) for first in range(0, len(logits_NV), size)]
