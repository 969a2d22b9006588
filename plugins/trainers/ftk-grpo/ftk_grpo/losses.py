"""The formulas of GRPO and its variants, as functions of tensors.

Shapes: G groups of K answers, R = G * K answers, N tokens of all answers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

TINY = 1e-4
"""Added to deviations, as in TRL."""


def advantages(rewards_R: torch.Tensor, group: int, scale: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(R,) how much better each answer is than the others to its prompt, and (G,) the deviations of the groups.

    DeepSeekMath, arXiv:2402.03300, section 4.1.2; scale ``none`` is Dr. GRPO (arXiv:2503.20783), ``batch`` divides by
    the deviation of all rewards (arXiv:2508.08221). Deviations are those of samples, with K - 1.
    """
    rewards_GK = rewards_R.view(-1, group)
    stds_G = rewards_GK.std(dim=1) if group > 1 else torch.zeros(len(rewards_GK), dtype=rewards_R.dtype)
    made_GK = rewards_GK - rewards_GK.mean(dim=1, keepdim=True)
    if scale == "group":
        made_GK = made_GK / (stds_G[:, None] + TINY)
    elif scale == "batch":
        made_GK = made_GK / ((rewards_R.std() if len(rewards_R) > 1 else 0.0) + TINY)
    return made_GK.reshape(-1), stds_G


def divergence(log_probs_N: torch.Tensor, reference_N: torch.Tensor) -> torch.Tensor:
    """The estimator k3 of KL(policy || reference) for sampled tokens, never negative (arXiv:2402.03300, eq. 4)."""
    apart_N = reference_N - log_probs_N
    return apart_N.exp() - apart_N - 1


def clipped(
    ratios_N: torch.Tensor, advantages_N: torch.Tensor, low: float, high: float, delta: float | None = None
) -> torch.Tensor:
    """-min(r A, clip(r, 1 - low, 1 + high) A), PPO's loss (arXiv:1707.06347, eq. 7) with DAPO's two bounds
    (arXiv:2503.14476, eq. 8). delta: r itself is at most this (INTELLECT-2, arXiv:2505.07291, section 3.4)."""
    bounded_N = ratios_N.clamp(1 - low, 1 + high)
    free_N = ratios_N if delta is None else ratios_N.clamp(max=delta)
    return -torch.minimum(free_N * advantages_N, bounded_N * advantages_N)


def is_clipped(ratios_N: torch.Tensor, advantages_N: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """(N,) bool: where clipping leaves no gradient."""
    too_low = (ratios_N < 1 - low) & (advantages_N < 0)
    return too_low | ((ratios_N > 1 + high) & (advantages_N > 0))


def weighted(
    ratios_N: torch.Tensor, advantages_N: torch.Tensor, log_probs_N: torch.Tensor, high: float
) -> torch.Tensor:
    """CISPO (MiniMax-M1, arXiv:2506.13585, eq. 4): the ratio is a weight, bounded and without gradient."""
    return -ratios_N.clamp(max=high).detach() * advantages_N * log_probs_N


def softened(ratios_N: torch.Tensor, advantages_N: torch.Tensor, positive: float, negative: float) -> torch.Tensor:
    """SAPO (arXiv:2511.20347): a sigmoid in the place of the clip, steeper where less is wanted."""
    heat_N = torch.where(advantages_N > 0, positive, negative)
    return -torch.sigmoid(heat_N * (ratios_N - 1)) * 4 / heat_N * advantages_N


Total = Callable[[torch.Tensor], torch.Tensor]
"""``total(values_N) -> (R,)``: what belongs to each answer, summed."""


def answer_ratios(log_ratios_N: torch.Tensor, answers_N: torch.Tensor, total: Total) -> torch.Tensor:
    """(N,): for each token the geometric mean of its answer's ratios, GSPO (arXiv:2507.18071, eq. 7)."""
    counts_R = total(torch.ones_like(log_ratios_N)).clamp(min=1)
    return (total(log_ratios_N) / counts_R)[answers_N].exp()


WEIGHTS: dict[str, Callable[[torch.Tensor, int], torch.Tensor]] = {
    "grpo": lambda lengths_N, longest: 1 / lengths_N,
    "sapo": lambda lengths_N, longest: 1 / lengths_N,
    "dr_grpo": lambda lengths_N, longest: torch.full_like(lengths_N, 1 / longest),
    "luspo": lambda lengths_N, longest: torch.ones_like(lengths_N),
    "dapo": lambda lengths_N, longest: torch.ones_like(lengths_N),
    "bnpo": lambda lengths_N, longest: torch.ones_like(lengths_N),
    "cispo": lambda lengths_N, longest: torch.ones_like(lengths_N),
}
"""Loss type → what each token's loss weighs, from the number of tokens of its answer and the most that it may have."""

OVER_TOKENS = frozenset({"dapo", "bnpo", "cispo"})
"""Loss types that are a mean over tokens; the others are means over answers."""
