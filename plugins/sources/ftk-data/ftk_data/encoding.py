"""Text to tokens, with masks that hold for every token.

Each segment is encoded by itself, so no token straddles a trained/untrained boundary: at inference, too, the answer
begins where the prompt's tokens end. All texts of a batch go to the tokenizer in one call.

T: all tokens of a batch, R: its rows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ftk_data.joining import Joiner, Tokens

if TYPE_CHECKING:
    from ftk import Media, Segment
    from numpy.typing import NDArray

    from ftk_data.rendering import Row


Encoded = Any
"""The tokens of a text: a list, or an encoding of the tokenizers library."""
SHORT, MOST_KNOWN = 16, 4096
"""Texts of so few characters are encoded once, and so many of them at most: a line break ends nearly every row."""


class Shown(NamedTuple):
    """Where the tokens of a medium stand in a batch."""

    first: int
    last: int
    medium: Media


class Batch(NamedTuple):
    """Rows of tokens, one after the other.

    starts: where each row starts, with the end as the last (R + 1 numbers). ends: after which tokens an answer that is
    trained ends, in ascending order; a row may be cut there without cutting a turn. weights_T: None when all weigh 1.
    """

    ids_T: NDArray[np.int32]
    trained_T: NDArray[np.bool_]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    weights_T: NDArray[np.float32] | None = None
    media: tuple[Shown, ...] = ()

    def all_trained(self) -> Batch:
        """The same with every token trained that no medium stands for."""
        trained_T = np.ones(len(self.ids_T), bool)
        for shown in self.media:
            trained_T[shown.first : shown.last] = False
        return self._replace(trained_T=trained_T)


class Encoder:
    """Encodes rows of segments with one tokenizer (transformers' ``PreTrainedTokenizerBase``).

    shared: several threads may use it at once; a tokenizer in Python may keep a state.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is not None:
            # what transformers does before each call; a tokenizer.json may carry truncation of its own
            backend.no_truncation()
            backend.no_padding()
            backend.encode_special_tokens = False  # what a template writes are tokens; what is not is marked literal
        self._backend = backend
        self.shared = backend is not None
        self._known: dict[str, list[int]] = {}
        self._guard_ids: dict[str, list[int]] = {"": []}

    def texts(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text by itself, no special tokens added."""
        return list(map(_ids, self._encoded(texts)))

    def _encoded(self, texts: Sequence[str]) -> list[Encoded]:
        """The texts as :func:`_ids` takes them."""
        if not texts:
            return []
        if self._backend is None:
            return list(self.tokenizer(list(texts), add_special_tokens=False, split_special_tokens=False)["input_ids"])
        known = self._known
        found: list[Any] = [known.get(text) for text in texts]
        new = [number for number, ids in enumerate(found) if ids is None]
        # the fast one leaves out offsets, which nobody reads here: a quarter of the time
        made = self._backend.encode_batch_fast([texts[number] for number in new], add_special_tokens=False)
        for number, encoded in zip(new, made, strict=True):
            found[number] = encoded
            if len(texts[number]) <= SHORT and len(known) < MOST_KNOWN:
                known[texts[number]] = encoded.ids
        return found

    def literal_texts(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text, with what looks like a control token read as text."""
        if self._literal is not None:
            return [one.ids for one in self._literal.encode_batch_fast(list(texts), add_special_tokens=False)]
        return list(self.tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True)["input_ids"])

    @cached_property
    def _literal(self) -> Any:
        """A second tokenizer, because how special tokens are read is a state of one."""
        if self._backend is None:
            return None
        facts = json.loads(self._backend.to_str())
        named = set(map(str, self.tokenizer.all_special_tokens))
        for token in facts["added_tokens"]:
            token["special"] |= token["content"] in named  # the end token of some is not marked as special
        made = type(self._backend).from_str(json.dumps(facts))
        made.encode_special_tokens = True
        return made

    def rows(self, rows: Sequence[Row]) -> Batch:
        """The tokens of some rows."""
        texts: Sequence[str]
        texts, learnt, weights, media, literal = zip(*chain.from_iterable(rows), strict=True) if any(rows) else [()] * 5
        ids_T, lengths = self._tokens(rows, texts, literal)
        trained = np.array(learnt, bool)
        edges = np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths)))
        sizes_R = np.fromiter(map(len, rows), np.int64, len(rows))
        firsts = np.concatenate((np.zeros(1, np.int64), np.cumsum(sizes_R)))
        even = weights.count(1.0) == len(weights)
        return Batch(
            ids_T,
            np.repeat(trained, lengths),
            edges[firsts],
            edges[1:][_ends(sizes_R, trained, media)],
            None if even else np.repeat(np.array(weights, np.float32), lengths),
            () if media.count(None) == len(media) else tuple(
                Shown(int(edges[number]), int(edges[number + 1]), shown)
                for number, shown in enumerate(media)
                if shown is not None
            ),
        )  # fmt: skip

    def _tokens(self, rows: Sequence[Row], texts: Sequence[str], literal: Sequence[bool]) -> Tokens:
        """The tokens of all segments."""
        if self._prefixes:
            guards = [guard for row in rows for guard in self._guards(row)]
            tokens = self._all([guard + text for guard, text in zip(guards, texts, strict=True)], literal)
            return _flat([_ids(one)[len(self._ids_of(guard)) :] for guard, one in zip(guards, tokens, strict=True)])
        made = self._joiner.tokens(texts) if self._joiner and True not in literal else None
        return made or _flat(self._all(texts, literal))

    @cached_property
    def _joiner(self) -> Joiner | None:
        return None if self._backend is None else Joiner(self._backend, self.tokenizer.added_tokens_decoder)

    def _all(self, texts: Sequence[str], literal: Sequence[bool]) -> list[Encoded]:
        if True not in literal:
            return self._encoded(texts)
        plain = iter(self.texts([text for text, as_text in zip(texts, literal, strict=True) if not as_text]))
        as_texts = iter(self.literal_texts([text for text, as_text in zip(texts, literal, strict=True) if as_text]))
        return [next(as_texts if as_text else plain) for as_text in literal]

    # SentencePiece vocabularies put a space in front of a text. In the middle of a row there is none at inference, so
    # such a tokenizer gets the segment behind a guard, whose tokens are then taken off again: the special token that
    # stands there anyway, or a newline.

    @cached_property
    def _prefixes(self) -> bool:
        guard, plain, guarded = self.texts(["\n", "a", "\na"])
        return guarded[: len(guard)] == guard and guarded[len(guard) :] != plain

    def _guards(self, row: Row) -> list[str]:
        return ["", *(self._guard(before, segment) for before, segment in pairwise(row))]

    def _guard(self, before: Segment, segment: Segment) -> str:
        """What a segment is encoded behind."""
        added = () if segment.literal or before.literal else self._added
        return next((token for token in added if before.text.endswith(token)), "\n")

    @cached_property
    def _added(self) -> tuple[str, ...]:
        return tuple(sorted(self.tokenizer.get_added_vocab(), key=len, reverse=True))

    def _ids_of(self, guard: str) -> list[int]:
        if guard not in self._guard_ids:
            self._guard_ids[guard] = self.texts([guard])[0]
        return self._guard_ids[guard]


def _ids(one: Encoded) -> list[int]:
    """The tokens of one text. An encoding makes the list when it is asked, so that few lie around at once."""
    return one if one.__class__ is list else one.ids  # type: ignore[no-any-return]


def _flat(parts: Sequence[Encoded]) -> Tokens:
    lengths = np.fromiter(map(len, parts), np.int64, len(parts))
    return Tokens(np.fromiter(chain.from_iterable(map(_ids, parts)), np.int32, int(lengths.sum())), lengths)


def _ends(sizes_R: NDArray[np.int64], trained: NDArray[np.bool_], media: Sequence[Media | None]) -> NDArray[np.int64]:
    """The numbers of the segments with which answers end; one may have literal text and media in between."""
    text = np.array([number for number, shown in enumerate(media) if shown is None], np.int64)
    row_of = np.repeat(np.arange(len(sizes_R)), sizes_R)[text]
    last = np.ones(len(text), bool)
    last[:-1] = (row_of[:-1] != row_of[1:]) | ~trained[text[1:]]
    return text[trained[text] & last]
