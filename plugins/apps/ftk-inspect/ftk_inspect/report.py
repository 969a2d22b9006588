"""``ftk data report``: what ftk-data says about the rows of a run, and how long they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from ftk import DataError
from ftk.opening import read_settings
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ftk_inspect.pieces import documents_of
from ftk_inspect.rows import SPLITS, opened_data, quiet, without_counts

BINS = 10
WIDTH = 40
"""Characters of the longest bar."""

NUMBERS = ("rows_read", "rows_used", "num_rows", "num_tokens", "num_trained_tokens", "longest_row")
"""What a data set's report always has; every other number in it says why rows went or changed."""


def make_report(config: str, words: Sequence[str]) -> dict[str, Any]:
    """Split → the report that a run writes for it, with ``cutoff_len`` and ``lengths``: the histogram.

    Raises FtkError subclasses; DataError for data that would stop the run.
    """
    # a stream has no end to report on; the same rows made beforehand have
    with opened_data(config, [*words, *_not_streamed(config, words)]) as opened, quiet(), without_counts():
        lengths = {split: lengths_of(opened.run.rows(split)) for split in SPLITS}
        made = opened.report()
        limit = opened.run.value("cutoff_len") if "cutoff_len" in opened.run.plan.registry.options else None
    for split, report in made.items():
        if not report["num_trained_tokens"]:
            raise DataError(f"{split}: none of the {report['num_tokens']} tokens is trained")
        report.update(cutoff_len=limit, lengths=histogram(lengths[split]))
    return made


def _not_streamed(config: str, words: Sequence[str]) -> list[str]:
    settings, _ = read_settings(config, words)
    return ["--streaming", "false"] if "streaming" in settings else []


def lengths_of(rows: Iterable[Mapping[str, Any]]) -> list[int]:
    """The number of tokens of each row, for packed rows of each document in them."""
    found: list[int] = []
    for row in rows:
        for key in (key for key in row if key.endswith("input_ids")):
            positions = row.get(f"{key.removesuffix('input_ids')}position_ids")
            length = len(row[key])
            found += [length] if positions is None else np.bincount(documents_of(positions, length)).tolist()
    return found


def histogram(lengths: Sequence[int]) -> list[dict[str, int]]:
    """How many lengths lie in each of some equal steps: ``from`` and ``to``, both included, and ``count``."""
    if not lengths:
        return []
    step = _round_up(-(-(max(lengths) - min(lengths) + 1) // BINS))
    steps = [max(0, length - 1) // step for length in lengths]
    first = min(steps)
    return [
        {"from": (first + number) * step + 1, "to": (first + number + 1) * step, "count": int(count)}
        for number, count in enumerate(np.bincount([one - first for one in steps]))
    ]


def _round_up(step: int) -> int:
    """The next number of one, two or five tens, hundreds …, so that steps are easy to read."""
    power = int(10 ** (len(str(step)) - 1))
    return next(power * digit for digit in (1, 2, 5, 10) if power * digit >= step)


def print_report(made: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the report of every split."""
    console = Console(highlight=False)
    before: Any = None
    for split, report in made.items():
        if before is not None:
            console.print()
        console.print(Text(headline(split, report), style="bold"), soft_wrap=True)
        if report["datasets"] != before:  # what val_size sets aside is of the same data sets
            console.print()
            print_datasets(console, report["datasets"])
        before = report["datasets"]
        console.print()
        for text in facts(report):
            console.print(Text(text), soft_wrap=True)
        console.print()
        print_bars(console, report)


def headline(split: str, report: Mapping[str, Any]) -> str:
    """``train: 90 rows, 12,345 tokens, 6,789 of them trained (55.0 %)``."""
    tokens, trained = report["num_tokens"], report["num_trained_tokens"]
    share = f"{100 * trained / max(1, tokens):.1f} %"
    return f"{split}: {report['num_rows']:,} rows, {tokens:,} tokens, {trained:,} of them trained ({share})"


def print_datasets(console: Console, datasets: Mapping[str, Mapping[str, Any]]) -> None:
    """A line for each data set, and below it a line for each reason why rows went or changed."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("data set", no_wrap=True)
    for title in ("read", "rows", "tokens", "trained", "longest"):
        table.add_column(title, justify="right", no_wrap=True)
    for name, one in datasets.items():
        table.add_row(Text(name), *(f"{one.get(key, 0):,}" for key in NUMBERS))
        for why, num in reasons(one):
            table.add_row(Text(f"  {why}"), f"{num:,}", style="yellow")
    if not console.is_terminal:
        width = table.__rich_measure__(console, console.options.update(width=10_000)).maximum
        console = Console(width=max(80, width))
    console.print(table)


def reasons(dataset: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Why rows of a data set went or changed, with their number."""
    return [(why, num) for why, num in dataset.items() if why not in NUMBERS and isinstance(num, int)]


def facts(report: Mapping[str, Any]) -> Iterable[str]:
    """What holds for the whole split."""
    limit = report["cutoff_len"]
    yield f"longest row  {report['longest_row']:,} tokens" + (f" (cutoff_len {limit:,})" if limit else "")
    if "packing_efficiency" in report:
        full = 100 * report["packing_efficiency"]
        yield f"packing      {report['num_rows']:,} rows of {limit:,} tokens, {full:.1f} % full"


def print_bars(console: Console, report: Mapping[str, Any]) -> None:
    """How many rows have which length."""
    what = "documents" if "packing_efficiency" in report else "rows"
    console.print(Text(f"tokens of {what}", style="bold"))
    bars = report["lengths"]
    most = max((bar["count"] for bar in bars), default=0)
    names = [f"{bar['from']:,}–{bar['to']:,}" if bar["from"] < bar["to"] else f"{bar['to']:,}" for bar in bars]
    width = max(map(len, names), default=0)
    for name, bar in zip(names, bars, strict=True):
        length = -(-WIDTH * bar["count"] // max(1, most))
        console.print(
            Text.assemble(f"{name:>{width}}  ", ("█" * length, "green"), f" {bar['count']:,}"), soft_wrap=True
        )
