"""From a row of tokens back to the example that it was made of, and to the columns of its data set.

Stages whose model answers prompts while it trains need them: engines take conversations, and those who judge an answer
read what else stands in its row.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ftk import ConfigError, DataError

from ftk_data.options import DataOptions
from ftk_data.reading import chosen

if TYPE_CHECKING:
    from ftk.run import Dataset, Run
    from ftk.types import Example, Rows

    from ftk_data.sequences import PromptRows


class Original(NamedTuple):
    """What a row was made of: the data set's row as it stands there, what became of it, and where it stands."""

    columns: Mapping[str, Any]
    example: Example
    where: str


class Originals:
    """Those of the rows that ``run.rows(split)`` gives, by the same index, read when asked for.

    Raises ConfigError for rows that were read from ``tokenized_path`` or stream: they do not tell where they came from.
    """

    def __init__(self, run: Run, split: str, rows: PromptRows) -> None:
        options = run.options(DataOptions)
        for key in ("tokenized_path", "streaming"):
            if getattr(options, key):
                raise ConfigError(f"{run.plan.where(key)}: this stage reads the data itself, too. Take it out")
        own = run.datasets("eval") if split == "eval" else ()
        named = {dataset.name: dataset for dataset in own or run.datasets("train")}
        self._numbers = rows.store.examples_N[rows.order]
        self._firsts = [first for _, first in rows.firsts]
        self._read = [_Read(named[name], chosen(named[name], run.seed)) for name, _ in rows.firsts]

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> Original:
        number = int(self._numbers[index])
        at = bisect_right(self._firsts, number) - 1
        return self._read[at].original(number - self._firsts[at])


class _Read:
    """The rows of one data set, by number."""

    def __init__(self, dataset: Dataset, rows: Rows) -> None:
        self.dataset, self.rows = dataset, rows
        self._all: list[Mapping[str, Any]] | None = None

    def original(self, number: int) -> Original:
        row = self._row(number)
        example = self.dataset.convert(row)
        where = f"{self.dataset.name}: {self.rows.where(number)}"
        if example is None:
            raise DataError(f"{where}: is empty now. The file has changed since the run began")
        return Original(row, example, where)

    def _row(self, number: int) -> Mapping[str, Any]:
        at = getattr(self.rows, "at", None)
        if at is not None:
            return next(at(number))
        if self._all is None:
            self._all = list(self.rows)
        return self._all[number]
