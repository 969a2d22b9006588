"""From the rows of a data set to examples: opening, choosing, converting, and a clear word on malformed rows."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from types import GeneratorType
from typing import TYPE_CHECKING, Any

import numpy as np
from ftk import ChatExample, ConfigError, DataError, FeedbackExample, Media, PairExample, TextExample

if TYPE_CHECKING:
    from ftk.run import Dataset
    from ftk.types import Example, Rows

    from ftk_data.options import DataOptions

log = logging.getLogger("ftk.data")

SKIPPED = "dropped: malformed"
EMPTY = "dropped: empty"
KINDS: Mapping[type, str] = {
    TextExample: "text (stage pt)",
    ChatExample: "conversations (stage sft)",
    PairExample: "pairs (stages dpo and rm)",
    FeedbackExample: "feedback (stage kto)",
}


class Reader:
    """The examples of one data set.

    counts: how many rows were read, and how many of them dropped and why; complete when the iteration is over.
    """

    def __init__(self, dataset: Dataset, wanted: type, options: DataOptions, seed: int) -> None:
        self.dataset, self.wanted, self.options, self.seed = dataset, wanted, options, seed
        self.rows: Rows = dataset.open()
        self.counts: Counter[str] = Counter()
        self.shown = 0

    def where(self, index: int) -> str:
        """``alpaca: alpaca.jsonl:17``, for errors."""
        return f"{self.dataset.name}: {self.rows.where(index)}"

    def __iter__(self) -> Iterator[tuple[int, Example]]:
        """(row number, example) of every row that is well-formed and holds something to learn.

        Raises DataError for a malformed row, unless ``on_bad_row`` is skip.
        """
        for index, row in islice(self._chosen(), self.options.max_samples):
            self.counts["rows"] += 1
            if isinstance(row, DataError):
                self.bad(str(row))
                continue
            try:
                example = self.dataset.convert(row)
                if example is not None:
                    self._check(example)
            except DataError as cause:
                self.bad(f"{self.where(index)}: {cause}", cause)
                continue
            if example is None:
                self.counts[EMPTY] += 1
            else:
                yield index, example

    def bad(self, reason: str, cause: Exception | None = None) -> None:
        """Stop at a malformed row, or count it."""
        if self.options.on_bad_row == "error":
            raise DataError(f"{reason}. Mend the row, or say --on_bad_row skip") from cause
        self.counts[SKIPPED] += 1
        self.shown += 1
        if self.shown <= 3:
            log.warning("skipped: %s", reason)

    def _check(self, example: Example) -> None:
        if not isinstance(example, self.wanted):
            raise ConfigError(
                f"{self.dataset.name}: holds {KINDS[type(example)]}, this stage wants {KINDS[self.wanted]}"
            )
        messages = getattr(example, "messages", ())
        contents = (message.content for message in messages if isinstance(message.content, tuple))
        if any(isinstance(part, Media) for content in contents for part in content):
            raise DataError("holds an image, video or audio, and no media processor is installed for this model")

    def _read(self) -> Iterator[tuple[int, Mapping[str, Any] | DataError]]:
        """Every row with its number; a row that cannot be parsed is its error.

        A source whose file is broken as a whole raises one and the same error again and again.
        """
        rows = iter(self.rows)
        index = 0
        before: DataError | None = None
        while True:
            try:
                row: Mapping[str, Any] | DataError = next(rows)
            except StopIteration:
                return
            except DataError as error:
                # a generator is at its end after it has raised, so that the rest of the data set would be lost
                if error is before or isinstance(rows, GeneratorType):
                    raise
                row = before = error
            yield index, row
            index += 1

    def _chosen(self) -> Iterator[tuple[int, Mapping[str, Any] | DataError]]:
        """The rows that ``num_samples`` of the entry takes, in random order, some repeatedly if it asks for more."""
        wanted = self.dataset.entry.fields.get("num_samples")
        if wanted is None:
            yield from self._read()
            return
        if not isinstance(wanted, int) or wanted < 1:
            raise ConfigError(f"{self.dataset.name}: num_samples: expected a number from 1, found {wanted!r}")
        rows = list(self._read())
        random = np.random.default_rng(self.seed)
        if rows:
            numbers = [*random.permutation(len(rows))[:wanted]]
            numbers += [*random.integers(len(rows), size=max(0, wanted - len(rows)))]
            yield from (rows[number] for number in numbers)
