"""How many rows and tokens there are, from a sample of the data or from all of it."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ftk.plan import Plan
from ftk.run import Run

from ftk_plan.changing import ALONE, changed, value

IDS = "input_ids"


@dataclass(frozen=True)
class Shape:
    """One forward row: tokens, and where it trains (positions from 0 whose next token is learnt)."""

    num_tokens: int
    trained: frozenset[int]


@dataclass(frozen=True)
class Rows:
    """What a run goes through.

    source: ``all rows`` or how the sample was taken. num_rows: of an epoch, None for a stream. tokens_per_row: mean
    over all forward rows of one. longest: the longest rows, each as its forward rows, longest first.
    """

    source: str
    exact: bool
    num_rows: int | None
    tokens_per_row: float
    trained_per_row: float
    longest: tuple[tuple[Shape, ...], ...]

    @property
    def forward_rows(self) -> int:
        """How many sequences a row is for the model: two for a pair."""
        return max((len(row) for row in self.longest), default=1)


def look_at(plan: Plan, words: Sequence[str], sample: int | None, keep: int = 64) -> Rows:
    """Tokenise rows, at most ``sample`` of each data set; None takes all, which also fills the cache for the run.

    keep: how many of the longest rows to keep. Raises DataError like the run.
    """
    limit = value(plan, "max_samples")
    streamed = bool(value(plan, "streaming"))
    counts = [_count(dataset.open(), limit) for dataset in Run(plan).datasets("train")] if sample else []
    settings, share = dict(ALONE), 1.0
    if not streamed and sample is not None and max(counts, default=0) > sample:
        settings["max_samples"] = sample
        share = sum(counts) / sum(min(count, sample) for count in counts)
    with tempfile.TemporaryDirectory(prefix="ftk-plan-") as folder:
        settings["output_dir"] = str(Path(folder) / "out")
        rows = Run(changed(plan, words, settings)).rows("train")
        found = [_shapes(row) for row in (islice(rows, sample or 1000) if streamed else rows)]
    tokens = [sum(shape.num_tokens for shape in row) for row in found]
    trained = [sum(len(shape.trained) for shape in row) for row in found]
    longest = sorted(found, key=lambda row: -max((shape.num_tokens for shape in row), default=0))[:keep]
    source = f"a sample of {sample:,} rows of each data set" if share > 1 else "all rows"
    return Rows(
        source=f"the first {len(found):,} rows of a stream" if streamed else source,
        exact=share == 1 and not streamed,
        num_rows=None if streamed else round(len(found) * share),
        tokens_per_row=sum(tokens) / max(1, len(found)),
        trained_per_row=sum(trained) / max(1, len(found)),
        longest=tuple(longest),
    )


def _count(rows: Any, limit: int | None) -> int:
    if hasattr(rows, "__len__"):
        return min(len(rows), limit or math.inf)  # type: ignore[return-value]
    return sum(1 for _ in islice(rows, limit))


def _shapes(row: Mapping[str, Any]) -> tuple[Shape, ...]:
    """A row's sequences by its keys: ``input_ids``, ``chosen_input_ids`` …; packed pairs hold rows themselves."""
    inner = [one for value in row.values() if isinstance(value, list) for one in value if isinstance(one, Mapping)]
    if inner:
        return tuple(shape for one in inner for shape in _shapes(one))
    shapes = []
    for key in (key for key in row if key.endswith(IDS)):
        labels = row.get(f"{key.removesuffix(IDS)}labels", ())
        trained = frozenset(place - 1 for place, label in enumerate(labels) if place and label != -100)
        shapes.append(Shape(len(row[key]), trained))
    return tuple(shapes)


@dataclass(frozen=True)
class Schedule:
    """How far a run goes. tokens are means; ``exact`` says whether rows were all counted."""

    num_steps: int | None
    steps_per_epoch: int | None
    rows_per_step: int
    tokens_per_step: float
    trained_per_step: float
    tokens_per_epoch: float | None
    num_tokens: float | None


def schedule(plan: Plan, rows: Rows, processes: int) -> Schedule:
    """Steps and tokens, counted as transformers does: the last batch of an epoch may be short, and so may its step."""
    batch = value(plan, "per_device_train_batch_size") * processes
    accumulation = value(plan, "gradient_accumulation_steps")
    most = value(plan, "max_steps")
    per_epoch = None
    if rows.num_rows is not None:
        cut = math.floor if value(plan, "dataloader_drop_last") else math.ceil
        per_epoch = max(1, math.ceil(cut(rows.num_rows / batch) / accumulation))
    steps = most if most > 0 else per_epoch and math.ceil(value(plan, "num_train_epochs") * per_epoch)
    per_step = min(batch * accumulation, rows.num_rows or math.inf)
    of_epoch = rows.tokens_per_row * rows.num_rows if rows.num_rows is not None else None
    whole = of_epoch * steps / per_epoch if of_epoch and steps and per_epoch else None
    if whole is None and steps:
        whole = steps * per_step * rows.tokens_per_row
    return Schedule(
        num_steps=steps,
        steps_per_epoch=per_epoch,
        rows_per_step=int(per_step),
        tokens_per_step=per_step * rows.tokens_per_row,
        trained_per_step=per_step * rows.trained_per_row,
        tokens_per_epoch=of_epoch,
        num_tokens=whole,
    )
