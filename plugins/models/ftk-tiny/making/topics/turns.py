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


class Rule(NamedTuple):
    """Some ways to ask one thing, and how it is answered. All three parts are patterns for `say`."""

    asks: tuple[str, ...]
    reply: str
    word: str = ""

    def turn(self, rng: Random, **slots: object) -> Turn:
        """Ask it in one of its ways."""
        return self.follow(rng, self.asks, **slots)

    def follow(self, rng: Random, asks: Sequence[str], **slots: object) -> Turn:
        """Ask it in other words, as in `And a dog?` after a question about a cat."""
        return Turn(say(rng, rng.choice(asks), **slots), say(rng, self.reply, **slots), say(rng, self.word, **slots))


def rules(text: str) -> list[Rule]:
    """Read blocks of lines, each block some questions and then `= reply`, with `[word]` after it where there is one."""
    found = []
    for block in text.strip().split("\n\n"):
        *asks, reply = block.splitlines()
        reply, _, word = reply.removeprefix("= ").partition(" [")
        found.append(Rule(tuple(asks), reply.replace("\\n", "\n"), word.removesuffix("]")))
    return found


def say(rng: Random, pattern: str, **slots: object) -> str:
    """Expand `(a|b|)` alternatives at random, then fill `{slots}`; last, so that their text is never parsed."""
    while True:
        expanded = CHOICE.sub(lambda match: rng.choice(match.group(1).split("|")), pattern)
        if expanded == pattern:
            return capital(expanded.format(**slots).strip())
        pattern = expanded


def pick(rng: Random, items: Sequence[Item], count: int) -> list[Item]:
    """Distinct items in random order."""
    return rng.sample(list(items), count)


def either(rng: Random, pair: tuple[Item, Item]) -> tuple[Item, Item]:
    """The pair one way or the other."""
    return pair if rng.random() < 0.5 else (pair[1], pair[0])


def invented(rng: Random) -> str:
    """A word that nobody knows, so that what is asked or copied is not tied to a list."""
    return "".join(pick(rng, SYLLABLES, rng.choice([2, 2, 3])))


def is_invented(word: str) -> bool:
    """Whether `invented` could have made it."""
    return re.fullmatch(f"({'|'.join(SYLLABLES)}){{2,3}}", word.lower()) is not None


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
    """`a/b, c/d` as pairs."""
    return [(left.strip(), right.strip()) for left, right in (item.split("/", 1) for item in text.split(","))]


def items(text: str) -> list[str]:
    """`a | b | c`, over several lines."""
    return [item.strip() for item in text.replace("\n", " ").split("|")]


def word_list(text: str) -> list[str]:
    """Words between blanks, over several lines."""
    return text.split()


SYLLABLES = word_list("bla ko zu mi tra fen dor gli pax wum sno bri tal vek rog nim qua sto lep hux ber ya dil ca mon")
