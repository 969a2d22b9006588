"""Many texts as few for the tokenizer, with a token between them that keeps their tokens apart.

A tokenizer first cuts a text at its added tokens and encodes what is between them by itself, so the tokens of each text
are the same as if it came alone, while what each text costs beside its tokens (an object, a list, a call) is saved: a
conversation has five times as many texts as rows. Tokens of which that does not hold (those that take the space around
them, overlap others, or are sought in normalised text) separate nothing.

N: texts, T: their tokens.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

TOGETHER = 1_000
"""Characters that go to the tokenizer as one text: enough to save nearly everything, few enough that what it notes of
each stays in a core's cache. With 16,384 it takes 8 % longer."""
MOST = 64
"""Tokens that are looked at, of the thousands that some tokenizers have: more than a template writes."""
TRIED = ("a b", "", "\n", " b ", "b", "\n\nb c", "  b\n", "1")
"""What a token is tried with."""


class Separator(NamedTuple):
    """An added token with its number."""

    text: str
    number: int


class Tokens(NamedTuple):
    """The tokens of some texts, one after the other, and how many each has."""

    ids_T: NDArray[np.int32]
    lengths_N: NDArray[np.int64]


class Joiner:
    """Encodes texts together. backend: a tokenizer of the tokenizers library; added: its added tokens by number.

    Threads may share it.
    """

    def __init__(self, backend: Any, added: Mapping[int, Any]) -> None:
        self._backend, self._added = backend, added
        self._separator: Separator | None = None

    def tokens(self, texts: Sequence[str]) -> Tokens | None:
        """The tokens of each text by itself; None when no token keeps them apart, because they hold all that could."""
        separator = self._separator
        if separator and (made := encoded(self._backend, texts, separator)):
            return made
        everything = "\0".join(texts)
        self._separator = next((one for one in self._candidates if one.text not in everything), None)
        return encoded(self._backend, texts, self._separator) if self._separator else None

    @cached_property
    def _candidates(self) -> list[Separator]:
        return [one for one in separators(self._added) if keeps_apart(self._backend, one)]


def encoded(backend: Any, texts: Sequence[str], separator: Separator) -> Tokens | None:
    """The tokens of texts with the separator after each; None when one of them holds it."""
    sizes_N = np.fromiter(map(len, texts), np.int64, len(texts))
    cuts = np.flatnonzero(np.diff(np.cumsum(sizes_N) // TOGETHER)) + 1
    spans = pairwise([0, *cuts.tolist(), len(texts)])
    joined = [separator.text.join([*texts[first:last], ""]) for first, last in spans]
    made = array("i")
    # the fast one leaves out offsets, which nobody reads here: a quarter of the time
    for one in backend.encode_batch_fast(joined, add_special_tokens=False):
        made.fromlist(one.ids)
    ids = np.asarray(made)
    ends_N = np.flatnonzero(ids == separator.number)
    if len(ends_N) != len(texts):
        return None
    return Tokens(ids[ids != separator.number], np.diff(ends_N, prepend=-1) - 1)


def separators(added: Mapping[int, Any]) -> Iterator[Separator]:
    """The added tokens that a tokenizer finds wherever they stand, and that touch nothing around them."""
    if any(token.single_word for token in added.values()):  # whether it is one depends on what is beside it
        return
    contents = [token.content for token in added.values()]
    untouching = (
        Separator(token.content, number)
        for number, token in added.items()
        if token.special and not (token.lstrip or token.rstrip or token.normalized)
    )
    for one in islice(untouching, MOST):
        if one.text.strip() == one.text and _is_found(one.text, contents):
            yield one


def _is_found(content: str, contents: Collection[str]) -> bool:
    """Whether a token is found wherever it is written: none holds it, and none ends as it begins, itself included."""
    beginnings = tuple(content[:size] for size in range(1, len(content)))
    return not any(one.endswith(beginnings) or (content in one and content != one) for one in contents)


def keeps_apart(backend: Any, separator: Separator) -> bool:
    """Whether a tokenizer does with the separator what it is said to do."""
    alone = [one.ids for one in backend.encode_batch_fast(list(TRIED), add_special_tokens=False)]
    made = encoded(backend, TRIED, separator)
    return (
        made is not None
        and made.lengths_N.tolist() == [len(ids) for ids in alone]
        and made.ids_T.tolist() == [number for ids in alone for number in ids]
    )
