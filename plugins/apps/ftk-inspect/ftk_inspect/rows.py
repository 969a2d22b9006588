"""The rows of a run, made as ``ftk run`` makes them, without touching what the run writes."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from ftk.opening import open_run, read_settings
from ftk.run import Run

REPORT = "data_report.json"
"""What ftk-data writes into output_dir."""

SPLITS = ("train", "eval")


class Opened(NamedTuple):
    """A run whose output_dir is an empty folder that goes away, so that nothing of the user's is written."""

    run: Run
    folder: Path

    def report(self) -> dict[str, Any]:
        """The report of the splits that were made so far."""
        path = self.folder / REPORT
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


@contextmanager
def opened_data(config: str, words: Sequence[str]) -> Iterator[Opened]:
    """The run of a YAML or a run directory, of which only rows and the tokenizer are asked.

    Raises FtkError subclasses for whatever is wrong with it.
    """
    with TemporaryDirectory(prefix="ftk-data-") as folder:
        elsewhere = ["--output_dir", folder, *_unsaved(config, words)]
        yield Opened(open_run("data", config, [*words, *elsewhere], base=True), Path(folder))


def _unsaved(config: str, words: Sequence[str]) -> list[str]:
    """Words that keep a look from saving rows: what it makes, perhaps of a few rows only, a run would train."""
    settings, _ = read_settings(config, words)
    path = settings.get("tokenized_path")
    return [] if path is None or not path.value or Path(path.value).exists() else ["--tokenized_path", "null"]


@contextmanager
def quiet() -> Iterator[None]:
    """ftk's log without what is only told: the caller says it better. Warnings stay."""
    log = logging.getLogger("ftk")
    level = log.level
    log.setLevel(max(level, logging.WARNING))
    try:
        yield
    finally:
        log.setLevel(level)


@contextmanager
def without_counts() -> Iterator[None]:
    """The log of ftk-data without its counts of rows that went: the report has them."""

    def is_no_count(record: logging.LogRecord) -> bool:
        return not re.fullmatch(r".+: \d+ of \d+ rows .+", record.getMessage())

    log = logging.getLogger("ftk.data")
    log.addFilter(is_no_count)
    try:
        yield
    finally:
        log.removeFilter(is_no_count)
