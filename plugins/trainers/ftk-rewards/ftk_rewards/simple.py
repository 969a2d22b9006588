"""Rewards that need no model. Each is a plain function; see :class:`ftk_rewards.Reward` for what they may ask for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ftk import ConfigError

from ftk_rewards import FormatOptions, LengthOptions, OverlongOptions

if TYPE_CHECKING:
    from ftk.run import Run

NUMBER = re.compile(r"[-+]?(?:\d[\d,]*)?(?:\.\d+|\d)(?:[eE][-+]?\d+)?")
TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
HASHES = re.compile(r"####\s*(.+)")
"""How GSM8K (arXiv:2110.14168) marks final answers."""


def accuracy(replies: Sequence[str], references: Sequence[str]) -> list[float | None]:
    """1 or 0; None without a reference. Numbers are compared as numbers, 1,000 equals 1000.0."""
    return [
        _same(_final(reply), _final(reference)) if reference.strip() else None
        for reply, reference in zip(replies, references, strict=True)
    ]


def match(replies: Sequence[str], references: Sequence[str]) -> list[float | None]:
    """1 or 0; None without a reference."""
    return [
        float(_plain(reply) == _plain(reference)) if reference.strip() else None
        for reply, reference in zip(replies, references, strict=True)
    ]


def format(replies: Sequence[str], run: Run) -> list[float]:
    """1 or 0. Raises ConfigError for a pattern that is none."""
    try:
        pattern = re.compile(run.options(FormatOptions).reward_pattern, re.DOTALL)
    except re.error as cause:
        raise ConfigError(f"{run.plan.where('reward_pattern')}: is no regular expression: {cause}") from cause
    return [float(pattern.fullmatch(reply) is not None) for reply in replies]


def length(tokens: Sequence[Sequence[int]], run: Run) -> list[float]:
    """max(0, 1 - |number of tokens - reward_length| / reward_length), the end token included."""
    wanted = run.options(LengthOptions).reward_length
    return [max(0.0, 1 - abs(len(one) - wanted) / wanted) for one in tokens]


def overlong(tokens: Sequence[Sequence[int]], run: Run) -> list[float]:
    """DAPO's soft overlong punishment (arXiv:2503.14476, eq. 13), with L_max = max_new_tokens."""
    buffer = run.options(OverlongOptions).reward_overlong_buffer
    free = run.value("max_new_tokens") - buffer
    return [min(0.0, max(-1.0, (free - len(one)) / buffer)) for one in tokens]


def repetition(replies: Sequence[str]) -> list[float]:
    """Minus the share of three words in a row that stand in the answer more than once."""
    return [-_repeated(reply.split()) for reply in replies]


def _repeated(words: Sequence[str], size: int = 3) -> float:
    runs = [tuple(words[first : first + size]) for first in range(len(words) - size + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def _final(text: str) -> str:
    """The final answer of a text: what is boxed or tagged last, else the last number, else all of it."""
    if (boxed := _boxed(text)) is not None:
        return boxed
    for pattern in (TAGGED, HASHES):
        if found := pattern.findall(text):
            return str(found[-1])
    numbers = NUMBER.findall(text)
    return numbers[-1] if numbers else text


def _boxed(text: str) -> str | None:
    r"""What the last ``\boxed{...}`` holds, braces inside of it included; None without one."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth, first = 1, start + len("\\boxed{")
    for place in range(first, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if not depth:
            return text[first:place]
    return None


def _same(one: str, other: str) -> float:
    numbers = [_number(one), _number(other)]
    if None not in numbers:
        return float(numbers[0] == numbers[1])
    return float(_plain(one) == _plain(other))


def _number(text: str) -> float | None:
    try:
        return float(text.strip().strip("$%").removesuffix(".").replace(",", ""))
    except ValueError:
        return None


def _plain(text: str) -> str:
    return " ".join(text.lower().split())
