"""From the rows of a data set to examples: opening, choosing, converting, and a clear word on malformed rows."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from types import GeneratorType
from typing import TYPE_CHECKING, Any

import numpy as np
from ftk import ChatExample, ConfigError, DataError, FeedbackExample, PairExample, TextExample

from ftk_data.file_formats import Lost

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

    counts: how many rows were read, and how many of them dropped and why, since the counts were last taken.
    ended: whether the last row has been seen.
    """

    def __init__(self, dataset: Dataset, wanted: type, options: DataOptions, seed: int) -> None:
        self.dataset, self.wanted, self.options = dataset, wanted, options
        self.rows: Rows = chosen(dataset, seed)
        self.counts: Counter[str] = Counter()
        self.ended = False
        self.shown = 0
        self._iterator: Iterator[Mapping[str, Any] | DataError] = iter(())
        self._next = -1

    @property
    def num_rows(self) -> int | None:
        """How many rows there are to read, None when the source cannot say."""
        if not hasattr(self.rows, "__len__"):
            return self.options.max_samples
        return min(len(self.rows), self.options.max_samples or len(self.rows))

    def where(self, index: int) -> str:
        """``alpaca: alpaca.jsonl:17``, for errors."""
        return f"{self.dataset.name}: {self.rows.where(index)}"

    def between(self, first: int, last: int) -> Iterator[tuple[int, Example]]:
        """(row number, example) of every row from ``first`` up to ``last`` that is well-formed and not empty.

        Raises DataError for a malformed row, unless ``on_bad_row`` is skip.
        """
        self.ended = False
        if self._next != first:
            self._iterator, self._next = iter(_Going(self.rows, first)), first
        limit = self.options.max_samples
        while self._next < last:
            if limit is not None and self._next >= limit:
                self.ended = True
                return
            try:
                row = next(self._iterator)
            except StopIteration:
                self.ended = True
                self._next = -1
                return
            index, self._next = self._next, self._next + 1
            self.counts["rows"] += 1
            example = self._example(index, row)
            if example is not None:
                yield index, example

    def _example(self, index: int, row: Mapping[str, Any] | DataError) -> Example | None:
        if isinstance(row, DataError):
            self.bad(str(row))
            return None
        try:
            example = self.dataset.convert(row)
        except DataError as cause:
            self.bad(f"{self.where(index)}: {cause}", cause)
            return None
        if example is None:
            self.counts[EMPTY] += 1
        elif not isinstance(example, self.wanted):
            told = f"holds {KINDS[type(example)]}, this stage wants {KINDS[self.wanted]}"
            if not index:
                raise ConfigError(f"{self.dataset.name}: {told}")
            self.bad(f"{self.where(index)}: {told}")  # the data set begins with what is wanted, so it is this row
            return None
        return example

    def bad(self, reason: str, cause: Exception | None = None) -> None:
        """Stop at a malformed row, or count it."""
        reason = reason.encode("utf-8", "backslashreplace").decode()  # half a surrogate pair could not be shown
        if self.options.on_bad_row == "error":
            raise DataError(f"{reason}. Mend the row, or say --on_bad_row skip") from cause
        self.counts[SKIPPED] += 1
        self.shown += 1
        if self.shown <= 3:
            log.warning("skipped: %s", reason)


class _Going(Iterator["Mapping[str, Any] | DataError"]):
    """The rows of a source from one on; a row that cannot be parsed is its error.

    A source whose file is broken as a whole raises one and the same error again and again.
    """

    def __init__(self, rows: Rows, first: int) -> None:
        self.before: DataError | None = None
        at = getattr(rows, "at", None)
        self.rows = iter(rows) if first == 0 or at is None else at(first)
        if at is None:
            for _ in islice(self, first):
                pass

    def __next__(self) -> Mapping[str, Any] | DataError:
        try:
            return next(self.rows)
        except DataError as error:
            # a generator is at its end after it has raised, so that the rest of the data set would be lost
            if error is self.before or isinstance(error, Lost) or isinstance(self.rows, GeneratorType):
                raise
            self.before = error
            return error


class Sampled:
    """``num_samples`` rows of another source, in random order, some repeatedly if there are fewer."""

    def __init__(self, rows: Rows, num: int, seed: int) -> None:
        self.rows, self.num, self.seed = rows, num, seed
        self._read: Mapping[int, Mapping[str, Any] | DataError] = {}
        self._numbers: list[int] = []

    def __len__(self) -> int:
        return self.num if self._all() else 0

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return self.at(0)

    def at(self, index: int) -> Iterator[Mapping[str, Any]]:
        rows = self._all()
        return _Raising([rows[number] for number in self._numbers[index:]])

    def where(self, index: int) -> str:
        return self.rows.where(self._numbers[index])

    def fingerprint(self) -> str:
        return f"{self.rows.fingerprint()}:{self.num}:{self.seed}"

    def _all(self) -> Mapping[int, Mapping[str, Any] | DataError]:
        """The rows that are drawn, by their number; where the source knows how many it has, no others are kept."""
        if not self._numbers:
            found = None if hasattr(self.rows, "__len__") else dict(enumerate(_Going(self.rows, 0)))
            total = len(self.rows) if found is None else len(found)  # type: ignore[arg-type]
            random = np.random.default_rng(self.seed)
            numbers = [*random.permutation(total)[: self.num].tolist()]
            if total:
                numbers += random.integers(total, size=max(0, self.num - total)).tolist()
            wanted = set(numbers)
            if found is None:
                found = {number: row for number, row in enumerate(_Going(self.rows, 0)) if number in wanted}
            self._read, self._numbers = found, numbers
        return self._read


class _Raising(Iterator["Mapping[str, Any]"]):
    """Rows that have been read; those that could not be parsed raise again."""

    def __init__(self, rows: Sequence[Mapping[str, Any] | DataError]) -> None:
        self.rows = iter(rows)

    def __next__(self) -> Mapping[str, Any]:
        row = next(self.rows)
        if isinstance(row, DataError):
            raise DataError(str(row)) from row.__cause__
        return row


def chosen(dataset: Dataset, seed: int) -> Rows:
    """The rows of a data set, those that ``num_samples`` of its entry takes.

    Raises ConfigError when that is no number from 1, and when ``ranking`` is neither true nor false.
    """
    if (ranking := dataset.entry.fields.get("ranking")) not in (None, True, False):
        raise ConfigError(f"{dataset.name}: ranking: expected true or false, found {ranking!r}")
    rows = dataset.open()
    wanted = dataset.entry.fields.get("num_samples")
    if wanted is None:
        return rows
    if not isinstance(wanted, int) or isinstance(wanted, bool) or wanted < 1:
        raise ConfigError(f"{dataset.name}: num_samples: expected a number from 1, found {wanted!r}")
    return Sampled(rows, wanted, seed)
