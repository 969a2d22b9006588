"""What every topic speaks in: turns, exchanges, and a small grammar for saying one thing in many ways."""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random
from typing import NamedTuple, TypeVar

Item = TypeVar("Item")

CHOICE = re.compile(r"\(([^()]*)\)")  # the innermost alternatives, so nested ones expand from the inside out


class Turn(NamedTuple):
    """One question with its reply; `word` is the one-word answer where there is one (for "Answer in one word")."""

    user: str
    reply: str
    word: str = ""


Exchange = list[Turn]


def say(rng: Random, pattern: str, **slots: object) -> str:
    """Expand `(a|b|)` alternatives at random, then fill `{slots}`; slots come last so that their text is never parsed."""
    while True:
        expanded = CHOICE.sub(lambda match: rng.choice(match.group(1).split("|")), pattern)
        if expanded == pattern:
            return capital(expanded.format(**slots))
        pattern = expanded


def pick(rng: Random, items: Sequence[Item], count: int) -> list[Item]:
    """Distinct items in random order."""
    return rng.sample(list(items), count)


def capital(text: str) -> str:
    """First letter upper case, the rest as it is (str.capitalize would lower the names)."""
    return text[:1].upper() + text[1:]


def a(noun: str) -> str:
    """The noun with its indefinite article."""
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"


def listing(items: Sequence[str]) -> str:
    """`red, blue and green`."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def table(text: str) -> list[list[str]]:
    """Rows of a `|` separated table, one row a line."""
    return [[cell.strip() for cell in line.split("|")] for line in text.strip().splitlines()]


def pairs(text: str) -> list[tuple[str, str]]:
    """`a b, c d` as pairs; use `a/b` items in tables whose words hold spaces."""
    separator = "/" if "/" in text else None
    return [(left.strip(), right.strip()) for left, right in (item.split(separator, 1) for item in text.split(","))]
