"""Making the rows of a data set: examples are rendered here while another thread encodes, a stretch at a time."""

from __future__ import annotations

import gc
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from ftk import DataError, Segment, TextExample

from ftk_data.encoding import Encoder
from ftk_data.fitting import Fitted, fit
from ftk_data.literal import ControlTokens, unescaped
from ftk_data.placing import media_of, placed
from ftk_data.shards import Shards
from ftk_data.stages import Stage
from ftk_data.store import Piece, collected

if TYPE_CHECKING:
    from ftk import Message
    from ftk.types import Example, MediaEncoder, Tools
    from numpy.typing import NDArray

    from ftk_data.options import DataOptions
    from ftk_data.reading import Reader
    from ftk_data.rendering import Renderer, Row

FORGED = "with control tokens in their text"
LONGEST = 8_000_000
"""Characters of a batch: long documents make smaller batches, so that memory stays bounded."""
FIRST = 64
"""Rows of the first batch of a stretch, each next one has twice as many: encoding begins at once."""
ENCODING = 2
"""Batches that are encoded at a time: while one becomes arrays here, the tokenizer's own threads have the other."""
YOUNG = 50_000
"""Objects after which the garbage collector looks through the new ones, in place of 700: rows have no cycles."""


class Pending(NamedTuple):
    """Rows of a batch, with the number of the example that each came from and what it is in it."""

    rows: list[Row]
    examples: list[int]
    roles: list[int]


class Work:
    """Makes the rows of one data set from its examples."""

    def __init__(
        self,
        reader: Reader,
        renderer: Renderer | None,
        tokenizer: Any,
        media: MediaEncoder | None,
        stage: Stage,
        options: DataOptions,
    ) -> None:
        self.reader, self.renderer, self.media, self.stage = reader, renderer, media, stage
        self.encoder = Encoder(tokenizer)
        self.control = ControlTokens.of(tokenizer)
        self.literally = bool(getattr(tokenizer, "split_special_tokens", False))
        policy = options.cutoff_policy if options.cutoff_policy in stage.policies else "drop"
        learns = options.train_on_prompt and stage.learns_prompts
        self.options = replace(options, cutoff_policy=policy, train_on_prompt=learns)

    def fill(self, shards: Shards) -> dict[int, tuple[Piece, dict[str, Any]]]:
        """Make every shard that nobody has made or is making, then wait for the others.

        Returns those that could not be kept on disk. Raises DataError as the reader and the policies do; a shard that
        another process failed to make is made here, so that its error comes out here, too.
        """
        unkept: dict[int, tuple[Piece, dict[str, Any]]] = {}
        waiting = False
        with _frozen():
            while self._pass(shards, unkept):
                if waiting:
                    time.sleep(0.005)
                waiting = True
        return unkept

    def _pass(self, shards: Shards, unkept: dict[int, tuple[Piece, dict[str, Any]]]) -> bool:
        """Go through all shards once; whether some are still in other hands."""
        number = 0
        missing = False
        while (num := shards.num) is None or number < num:
            if number in unkept or shards.has(number):
                pass
            elif shards.claim(number):
                try:
                    if not shards.has(number):  # made between the look and the claim
                        self._make(shards, number, unkept)
                finally:
                    shards.unclaim(number)
            else:
                missing = True
            number += 1
        return missing

    def _make(self, shards: Shards, number: int, unkept: dict[int, tuple[Piece, dict[str, Any]]]) -> None:
        piece, counts = self.piece(number * shards.size, (number + 1) * shards.size, lambda: shards.refresh(number))
        last = number + 1 if counts.get("rows") else number
        if last > number:
            shards.write(number, piece, {"counts": counts})
            if shards.lost:
                unkept[number] = (piece, {"counts": counts})
        if self.reader.ended:
            shards.end(last)

    def again(self, shards: Shards, number: int) -> tuple[Piece, dict[str, Any]]:
        """Make a shard anew that could not be read."""
        unkept: dict[int, tuple[Piece, dict[str, Any]]] = {}
        self._make(shards, number, unkept)
        found = unkept.get(number) or shards.read(number)
        assert found, f"{shards.path(number)} was written and cannot be read"
        return found

    def piece(self, first: int, last: int, beat: Any = lambda: None) -> tuple[Piece, dict[str, int]]:
        """The rows of the source's from ``first`` up to ``last``, and what was counted; ``beat`` is called often."""
        self.reader.counts = Counter()
        made: list[tuple[Pending, Fitted]] = []
        waiting: deque[tuple[Pending, Future[Fitted]]] = deque()
        with ThreadPoolExecutor(ENCODING if self.encoder.shared else 1) as pool:
            for pending in self._rendered(first, last):
                waiting.append((pending, pool.submit(self._encoded, pending)))
                if len(waiting) > ENCODING:
                    before, coming = waiting.popleft()
                    made.append((before, coming.result()))
                    beat()
            made += [(before, coming.result()) for before, coming in waiting]
        counts = self.reader.counts
        piece = collected([self._counted(pending, fitted, counts) for pending, fitted in made])
        counts["used"] = len(np.unique(piece.examples_N))
        return piece, {name: int(num) for name, num in counts.items() if num}

    def _encoded(self, pending: Pending) -> Fitted:
        batch = self.encoder.rows(pending.rows)
        if self.options.train_on_prompt:
            batch = batch.all_trained()
        where = lambda row: self.reader.where(pending.examples[row])  # noqa: E731
        return fit(batch, self.options, where, answered=self.stage.answered)

    def _counted(
        self, pending: Pending, fitted: Fitted, counts: Counter[str]
    ) -> tuple[NDArray[np.int64], NDArray[np.int8], Fitted]:
        """Count what happened to examples, and let go of rows whose example is of no use without a lost one."""
        examples_R = np.array(pending.examples, np.int64)
        if self.stage.together:
            lost = np.setdiff1d(np.arange(len(examples_R)), fitted.rows_K)
            fitted = fitted.only(~np.isin(examples_R[fitted.rows_K], examples_R[lost]))
        kept = set(examples_R[fitted.rows_K].tolist())
        told: set[int] = set()
        for what, rows in fitted.changed.items():
            touched = set(examples_R[rows].tolist())
            if what.startswith("dropped"):
                counts[what] += len(touched - kept - told)  # an example is lost for one reason
                told |= touched - kept
                counts[f"partly {what}"] += len(touched & kept)
            else:
                counts[what] += len(touched & kept)
        return examples_R, np.array(pending.roles, np.int8), fitted

    def _rendered(self, first: int, last: int) -> Iterator[Pending]:
        pending, size = Pending([], [], []), 0
        most = min(FIRST, self.options.preprocessing_batch_size)
        for index, example in self.reader.between(first, last):
            size += self._put(pending, index, example)
            if len(pending.rows) >= most or size > LONGEST:
                yield pending
                pending, size = Pending([], [], []), 0
                most = min(2 * most, self.options.preprocessing_batch_size)
        if pending.rows:
            yield pending

    def _put(self, pending: Pending, index: int, example: Example) -> int:
        """Put the rows of an example into a batch, none when it is malformed and may be skipped; their characters."""
        try:
            made = [(self._document(example.text), 0)] if isinstance(example, TextExample) else self._written(example)
            size = sum([_num_characters(row) for row, _ in made])
        except DataError as cause:
            self.reader.bad(f"{self.reader.where(index)}: {cause}", cause)
            return 0
        for row, role in made:
            pending.rows.append(row)
            pending.examples.append(index)
            pending.roles.append(role)
        return size

    def _written(self, example: Any) -> Sequence[tuple[Row, int]]:
        """The rows that the template writes, each with what it is in the example. Raises DataError."""
        parts = self.stage.parts(example, self.options)
        forged = any(self.control.are_in(part.messages, example.tools) for part in parts)
        if forged:
            self.reader.counts[FORGED] += 1
        made = [(row, part.role) for part in parts for row in self._render(part.messages, example.tools, forged)]
        if self.stage.together and len(made) != len(parts):
            raise DataError("the chat template writes an answer of it as several rows, which belong to no pair")
        return made

    def _document(self, text: str) -> Row:
        """A text with the end token after it."""
        end = Segment(self.encoder.tokenizer.eos_token or "", True)
        forged = self.control.are_spelt(text)
        self.reader.counts[FORGED] += forged
        if forged and self.literally:
            return [Segment(text, True, literal=True), end]
        return [Segment(text + end.text, True)]

    def _render(self, messages: Sequence[Message], tools: Tools, forged: bool) -> Sequence[Row]:
        assert self.renderer
        literally = forged and self.literally
        shown, known = self.control.escaped(messages, tools) if literally else (messages, tools)
        rows: Sequence[Row] = self.renderer.render(shown, known)
        if not self.stage.answered and not any(segment.trained for row in rows for segment in row):
            rows = [[Segment(self.renderer.prompt_text(shown, known), False)]]
        if literally:
            rows = unescaped(rows)
        if self.media:
            return placed(rows, messages, self.media)
        if media_of(messages):
            raise DataError("holds an image, video or audio, and no media processor is installed for this model")
        return rows


@contextmanager
def _frozen() -> Iterator[None]:
    """Keep the garbage collector away from what is there already: among so many lists of tokens it would go through all
    of the imported libraries again and again, a fifth of a second each time."""
    already, young = gc.get_freeze_count(), gc.get_threshold()
    gc.freeze()
    if young[0]:  # 0 is a collector that does not run
        gc.set_threshold(max(YOUNG, young[0]), *young[1:])
    try:
        yield
    finally:
        gc.set_threshold(*young)
        if not already:
            gc.unfreeze()


def _num_characters(row: Row) -> int:
    """How many characters a row has. Raises DataError for half of one."""
    size = 0
    for segment in row:
        text = segment[0]
        size += len(text)
        if not text.isascii():
            _refuse_half_characters(text)
    return size


def _refuse_half_characters(text: str) -> None:
    """Raise DataError for what no tokenizer takes: half of a surrogate pair, as a cut in the wrong place leaves it."""
    try:
        text.encode()
    except UnicodeEncodeError as cause:
        raise DataError("holds half of a surrogate pair, which is no character") from cause
