"""Rows of tokens as text: what each token says, what is trained, and which document of a pack it is of.

T: the tokens of a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from ftk import ConfigError

IGNORED = -100
"""The label that the loss leaves out."""

HALF = "\ufffd"
"""What a tokenizer gives for the bytes of an unfinished character."""

MOST_BYTES = 4
"""A character has at most this many, so no more tokens are held back for one."""


class Piece(NamedTuple):
    """A token, or those that make up one character, with its text. ``document`` counts the documents of a pack."""

    ids: tuple[int, ...]
    text: str
    trained: bool
    document: int


class Stretch(NamedTuple):
    """Pieces in a row that are all trained or all not, of one document."""

    pieces: tuple[Piece, ...]

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)

    @property
    def trained(self) -> bool:
        return self.pieces[0].trained

    @property
    def document(self) -> int:
        return self.pieces[0].document


class Part(NamedTuple):
    """The tokens of a row. The row of a pair has several parts, which its keys name; the only one has no ``title``."""

    title: str
    stretches: tuple[Stretch, ...]

    @property
    def pieces(self) -> list[Piece]:
        return [piece for stretch in self.stretches for piece in stretch.pieces]

    @property
    def num_tokens(self) -> int:
        return sum(len(piece.ids) for piece in self.pieces)

    @property
    def num_trained(self) -> int:
        return sum(len(piece.ids) for piece in self.pieces if piece.trained)

    @property
    def num_documents(self) -> int:
        return self.stretches[-1].document + 1 if self.stretches else 0


def parts_of(row: Mapping[str, Any], tokenizer: Any) -> list[Part]:
    """The parts of a row: ``input_ids`` with ``labels``, and for pairs each ``NAME_input_ids`` with its labels.

    Raises ConfigError for rows without tokens.
    """
    names = [key.removesuffix("input_ids") for key in row if key.endswith("input_ids")]
    if not names:
        raise ConfigError(f"the rows of this stage hold no tokens, only {', '.join(row)}. Choose another stage")
    return [_part(row, name, tokenizer) for name in names]


def _part(row: Mapping[str, Any], name: str, tokenizer: Any) -> Part:
    ids_T = np.asarray(row[f"{name}input_ids"])
    labels_T = np.asarray(row.get(f"{name}labels", ids_T))
    documents_T = documents_of(row.get(f"{name}position_ids"), len(ids_T))
    pieces = _pieces(ids_T.tolist(), (labels_T != IGNORED).tolist(), documents_T.tolist(), tokenizer)
    groups = groupby(pieces, key=lambda piece: (piece.trained, piece.document))
    return Part(name.rstrip("_"), tuple(Stretch(tuple(group)) for _, group in groups))


def documents_of(position_ids: Any, num_tokens: int) -> Any:
    """The number of the document (from 0) that each token is of: positions restart at 0 for each."""
    if position_ids is None:
        return np.zeros(num_tokens, np.int64)
    # several rows of positions (as in Qwen2-VL) say the same about where documents start
    positions_T = np.asarray(position_ids).reshape(-1, num_tokens)[0]
    starts_T = positions_T == 0
    starts_T[:1] = True
    return np.cumsum(starts_T) - 1


def _pieces(ids: Sequence[int], trained: Sequence[bool], documents: Sequence[int], tokenizer: Any) -> Iterator[Piece]:
    """Each token with the text that it adds to what comes before; the texts joined are the text of the row.

    The text of a token depends on its neighbours (a space in front of a word, bytes of a character), so it is what the
    decoded text grows by, over a window that reaches back to the piece before.
    """
    before, start = 0, 0
    for end in range(1, len(ids) + 1):
        text = decoded(tokenizer, ids[before:end])
        last = end == len(ids) or (trained[end], documents[end]) != (trained[start], documents[start])
        if text.endswith(HALF) and not last and end - start < MOST_BYTES:
            continue
        known = len(decoded(tokenizer, ids[before:start]))
        yield Piece(tuple(ids[start:end]), text[known:], trained[start], documents[start])
        before, start = start, end


def decoded(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of tokens, special ones included, nothing tidied up."""
    if not ids:
        return ""
    return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))
