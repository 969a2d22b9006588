"""From the logits of a step to one token for each answer, each by its own sampling and its own random numbers.

The order is transformers': penalties, temperature, top_k, top_p, min_p. Shapes: B answers, V words, K candidates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from ftk import Sampling

Allowed = Callable[[Sequence[int]], torch.Tensor]
"""``allowed(tokens of the answer) -> mask (V,)`` of what may follow, for an answer in a form that was asked for."""


@dataclass
class Picker:
    """Picks the tokens of one answer. ``tokens``: what was picked so far.

    prompt: its tokens, which ``repetition_penalty`` counts, too. generator: draws; unset draws from torch's own.
    """

    sampling: Sampling
    prompt: Sequence[int] = ()
    generator: torch.Generator | None = None
    allowed: Allowed | None = None
    tokens: list[int] = field(default_factory=list)
    logprobs: list[tuple[tuple[int, float], ...]] = field(default_factory=list)

    def changed(self, logits_V: torch.Tensor) -> torch.Tensor:
        """The logits with the penalties of what was said, and without what may not follow."""
        sampling = self.sampling
        if sampling.repetition_penalty != 1:  # Keskar et al. 2019, section 4.1
            seen = torch.tensor(sorted({*self.prompt, *self.tokens}), device=logits_V.device)
            found = logits_V[seen]
            by = sampling.repetition_penalty
            logits_V = logits_V.index_copy(0, seen, torch.where(found < 0, found * by, found / by))
        if self.tokens and (sampling.presence_penalty or sampling.frequency_penalty):
            counts = Counter(self.tokens)
            said = torch.tensor(list(counts), device=logits_V.device)
            times = torch.tensor(list(counts.values()), device=logits_V.device, dtype=logits_V.dtype)
            less = sampling.presence_penalty + sampling.frequency_penalty * times
            logits_V = logits_V.index_add(0, said, -less)
        if self.allowed is not None:
            mask_V = self.allowed(self.tokens).to(logits_V.device)
            logits_V = logits_V.masked_fill(~mask_V, -torch.inf)
        return logits_V

    @property
    def changes(self) -> bool:
        sampling = self.sampling
        penalties = sampling.repetition_penalty != 1 or sampling.presence_penalty or sampling.frequency_penalty
        return bool(penalties) or self.allowed is not None


def pick(logits_BV: torch.Tensor, pickers: Sequence[Picker]) -> list[int]:
    """A token for each answer, which its picker keeps, too, with its log-probability where that was asked for.

    A log-probability is the model's own, before penalties and temperature.
    """
    logits_BV = logits_BV.float()
    raw_BV = logits_BV
    if any(picker.changes for picker in pickers):
        logits_BV = torch.stack([one.changed(row_V) for one, row_V in zip(pickers, logits_BV, strict=True)])
    tokens_B = logits_BV.argmax(dim=-1)
    drawing = [number for number, picker in enumerate(pickers) if picker.sampling.do_sample]
    if drawing:
        tokens_B[drawing] = _drawn(logits_BV[drawing], [pickers[number] for number in drawing])
    tokens = [int(token) for token in tokens_B.tolist()]
    for number, (picker, token) in enumerate(zip(pickers, tokens, strict=True)):
        picker.tokens.append(token)
        if picker.sampling.logprobs is not None:
            picker.logprobs.append(_told(raw_BV[number], token, picker.sampling.logprobs))
    return tokens


def _told(logits_V: torch.Tensor, token: int, num: int) -> tuple[tuple[int, float], ...]:
    log_probs_V = logits_V.log_softmax(-1)
    best = log_probs_V.topk(min(num, len(log_probs_V)))
    others = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return ((token, float(log_probs_V[token])), *others)


def _drawn(logits_BV: torch.Tensor, pickers: Sequence[Picker]) -> torch.Tensor:
    device, asked = logits_BV.device, [picker.sampling for picker in pickers]

    def column(values: Sequence[float]) -> torch.Tensor:
        return torch.tensor(values, device=device, dtype=torch.float32)[:, None]

    words = logits_BV.shape[1]
    kept = [min(one.top_k, words) or words for one in asked]
    scaled_BV = logits_BV / column([max(one.temperature, 1e-5) for one in asked])
    scores_BK, words_BK = scaled_BV.topk(max(kept), dim=-1)  # sorted, the most likely first
    ranks_K = torch.arange(scores_BK.shape[1], device=device)
    scores_BK = scores_BK.masked_fill(ranks_K >= column([float(number) for number in kept]), -torch.inf)
    probs_BK = scores_BK.softmax(-1)
    before_BK = probs_BK.cumsum(-1) - probs_BK  # a candidate stays while those before it do not fill top_p
    out_BK = before_BK >= column([one.top_p for one in asked])
    out_BK[:, 0] = False
    probs_BK = probs_BK.masked_fill(out_BK, 0.0)
    least = column([one.min_p for one in asked]) * probs_BK[:, :1]
    probs_BK = probs_BK.masked_fill(probs_BK < least, 0.0)
    noise_BK = torch.stack([_noise(probs_BK.shape[1], picker.generator) for picker in pickers]).to(device)
    return words_BK.gather(1, (probs_BK / noise_BK).argmax(dim=-1, keepdim=True))[:, 0]


def _noise(size: int, generator: torch.Generator | None) -> torch.Tensor:
    """Exponential numbers: the largest of p / noise is a draw from p (Gumbel's trick), on the CPU for any device."""
    return torch.empty(size).exponential_(generator=generator).clamp_(min=1e-30)
