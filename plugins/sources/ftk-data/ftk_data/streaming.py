"""``streaming: true``: rows that are made while training, for data that would take too long, or too much room, before.

There is one sequence of rows for the whole training, the same for every process and any number of them; each takes its
share of it. What it takes to go on after any row is small, and goes into each checkpoint.
"""

from __future__ import annotations

import json
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ftk import CheckpointError, ConfigError, DataError, rundir

import ftk_data
from ftk_data import report
from ftk_data.ahead import Ahead
from ftk_data.reading import Reader
from ftk_data.stages import TEXT, Stage
from ftk_data.store import Store
from ftk_data.stream_order import Course, Mix, Order, State, edited, why
from ftk_data.stream_rows import Packed, arranging
from ftk_data.stream_source import STRETCH, Id, Place, UnitSource
from ftk_data.tokenising import Tokenised, media_encoder
from ftk_data.work import Work

if TYPE_CHECKING:
    from ftk.run import Run

    from ftk_data.options import DataOptions
    from ftk_data.sequences import RowDict
    from ftk_data.stream_order import Made, Mark

log = logging.getLogger("ftk.data")

AHEAD = 2**20
"""Tokens that lie ready for the trainer, each row counting as so many more as a short one costs."""
ROW = 256


class StreamRows:
    """The rows of a training, without end and without length. See :class:`ftk_data.sequences.TokenRows` for a row.

    packed: whether several documents may share a row, isolated from each other.
    course: makes the sequence, from a state on. of: what a state must agree with to be this sequence's.
    Rows are counted from the beginning of the training, over resumes.
    """

    packed = False

    def __init__(self, course: Callable[[State | None], Course], of: State, publish: Callable[..., None]) -> None:
        self._course, self._of, self._publish = course, json.loads(json.dumps(of)), publish
        self._start: State = {"rows": 0, "buffer": ()}
        self._begun: Course | None = None
        self._ahead: Ahead[tuple[Made, Mark]] | None = None
        self._begin()

    def _begin(self) -> None:
        self._num, self._state, self._buffer = self._start["rows"], self._start, [*self._start["buffer"]]
        self._marks: deque[Mark] = deque()

    def look(self) -> None:
        """Make the first rows of every data set, so that what is wrong with one is known before anything is loaded.

        Raises DataError as the readers and the policies do, and when there is no row at all.
        """
        self._begun = self._course(None)
        sources = self._begun.sources
        lasts = [source.look().last for source in sources]  # every one of them has to look
        if all(lasts) and not any(source.has_more() for source in sources):
            raise DataError(f"train: no row is left to train on{why(sources)}")

    def __iter__(self) -> Iterator[RowDict]:
        """The rows after those that a restored state has given out; they are made in a thread, a little ahead."""
        self.close()
        self._begin()
        course, self._begun = self._begun or self._course(self._start if self._num else None), None
        self._ahead = ahead = Ahead(course, lambda item: item[0].num_tokens + ROW, AHEAD)
        try:
            for made, mark in ahead:
                self._marks.append(mark)
                yield made.row
        finally:
            ahead.close()

    def close(self) -> None:
        """Make no more rows."""
        if self._ahead is not None:
            self._ahead.close()

    # Where the training is.

    def state(self, num_rows: int) -> dict[str, Any]:
        """What :meth:`restore` takes to go on after that many rows, as JSON can hold it."""
        buffer = list(self._buffer)
        for mark in islice(self._marks, num_rows - self._num):
            edited(buffer, mark.edits)
        return {**self._state_after(num_rows), "rows": num_rows, "of": self._of, "buffer": buffer}

    def forget(self, num_rows: int) -> None:
        """Nobody will ask for the state before that row any more."""
        while self._num < num_rows:
            mark = self._marks.popleft()
            edited(self._buffer, mark.edits)
            self._num, self._state = self._num + 1, mark.state

    def restore(self, state: State) -> int:
        """Begin after the rows that had been given out, and say how many those were.

        Raises CheckpointError when the state is that of another sequence.
        """
        theirs = state["of"]
        for key in sorted({*theirs, *self._of}):
            if theirs.get(key) != self._of.get(key):
                raise CheckpointError(
                    f"streaming: the place in the data was noted with {key} {theirs.get(key)!r}, this run has "
                    f"{self._of.get(key)!r}. Resume with what it had, or train from the checkpoint's model in another "
                    "output_dir"
                )
        self._start, self._begun = state, None
        self._begin()
        return int(state["rows"])

    def publish(self, num_rows: int, *, last: bool = False) -> None:
        """Write the data report as of that many rows; the ``last`` one is logged."""
        self._publish(self._state_after(num_rows), last=last)

    def _state_after(self, num_rows: int) -> State:
        assert self._num <= num_rows <= self._num + len(self._marks), f"row {num_rows} has not been given out"
        return self._marks[num_rows - self._num - 1].state if num_rows > self._num else self._state


def stream(run: Run, stage: Stage, options: DataOptions, fitting: DataOptions) -> StreamRows:
    """The rows of ``train``. ``fitting`` has the ``cutoff_len`` of single documents.

    Raises ConfigError for options that have no meaning here, and DataError as :meth:`StreamRows.look` does.
    """
    _check(run, options)
    aside = set_aside(run, stage, fitting)
    order = _order(run, options)
    names = [dataset.name for dataset in run.datasets("train")]

    def course(state: State | None) -> Course:
        places = [Place(*place) for place in state["sources"]] if state else [None] * len(names)
        return Course(_sources(run, stage, fitting, aside.starts, places), order, arranging(stage, options), state)

    def publish(state: State, *, last: bool) -> None:
        _publish(run, names, state, options.cutoff_len if options.packing or options.neat_packing else 0, last)

    of = {
        "stage": stage.name, "datasets": names, "seed": order.seed, "mix_strategy": options.mix_strategy,
        "interleave_probs": options.shares, "buffer_size": order.buffer_size, "cutoff_len": options.cutoff_len,
        "cutoff_policy": options.cutoff_policy, "packing": bool(options.packing), "val_size": options.val_size,
        "neat_packing": options.neat_packing, "max_samples": options.max_samples, "starts": aside.starts,
    }  # fmt: skip
    rows = StreamRows(course, of, publish)
    rows.packed = isinstance(arranging(stage, options), Packed)
    rows.look()
    _record(run, {name: {"streamed": True} for name in names})
    return rows


def _check(run: Run, options: DataOptions) -> None:
    where = run.plan.where("streaming")
    if _value(run, "max_steps", 1) < 1:
        raise ConfigError(f"{where}: needs max_steps, because a stream has no length to count epochs by. Set max_steps")
    if options.tokenized_path:
        raise ConfigError(f"{where}: makes rows while training, so tokenized_path can keep none. Leave one of them out")
    num = len(run.datasets("train"))
    if options.shares is not None and len(options.shares) != num > 1:
        raise ConfigError(f"interleave_probs: has {len(options.shares)} numbers for {num} data sets")


def _value(run: Run, key: str, default: Any) -> Any:
    """An option of whoever trains, where anybody does."""
    try:
        return run.value(key)
    except KeyError:
        return default


def _order(run: Run, options: DataOptions) -> Order:
    data_seed = _value(run, "data_seed", None)
    buffer_size = 1 if _value(run, "disable_shuffling", False) else options.buffer_size
    return Order(
        options.mix_strategy, options.shares, run.seed, buffer_size, run.seed if data_seed is None else data_seed
    )


def _sources(
    run: Run, stage: Stage, fitting: DataOptions, starts: Sequence[int], places: Sequence[Place | None]
) -> list[UnitSource]:
    renderer = None if stage is TEXT else ftk_data.renderer(run)
    media = media_encoder(run) if renderer else None
    # smaller batches than a whole stretch, so that rendering one and encoding another overlap
    options = replace(fitting, preprocessing_batch_size=min(fitting.preprocessing_batch_size, STRETCH // 4))
    made = []
    for number, (dataset, start, place) in enumerate(zip(run.datasets("train"), starts, places, strict=True)):
        reader = Reader(dataset, stage.wanted, options, run.seed)
        work = Work(reader, renderer, run.tokenizer, media, stage, options)
        made.append(UnitSource(number, work, start, place))
    return made


# Rows for evaluation.


class Aside(NamedTuple):
    """What ``val_size`` takes: the rows, by data set, and where in each source the training begins after them."""

    datasets: tuple[Tokenised, ...]
    starts: tuple[int, ...]


def set_aside(run: Run, stage: Stage, fitting: DataOptions) -> Aside:
    """The first ``val_size`` examples of the mixed data sets, unless there are data sets for evaluation.

    Raises ConfigError for a share of a whole that nobody knows, and when nothing would be left to train on.
    """
    num = len(run.datasets("train"))
    if not fitting.val_size or run.datasets("eval"):
        return Aside((), (0,) * num)
    if fitting.val_size < 1:
        raise ConfigError(
            f"{run.plan.where('val_size')}: with streaming it is a number of examples from 1, because nobody knows how "
            "many there are to take a share of. Say for instance val_size: 100, or name an eval_dataset"
        )
    return run.once(f"ftk_data.aside:{stage.name}", lambda: _aside(run, stage, fitting))


def _aside(run: Run, stage: Stage, fitting: DataOptions) -> Aside:
    num = len(run.datasets("train"))
    sources = _sources(run, stage, fitting, [0] * num, [None] * num)
    mix = Mix(sources, _order(run, fitting))
    units: dict[Id, Any] = {}
    examples: set[tuple[int, int]] = set()
    while len(examples) < int(fitting.val_size) and (unit := mix.next()):
        units[unit.id] = unit
        examples.add(unit.id[:2])
    for source in sources:  # all rows of an example go the same way
        while source.has_more() and source.look().ids[source.taken][:2] in examples:
            unit = source.take()
            units[unit.id] = unit
    if not any(source.has_more() for source in sources):
        raise ConfigError(f"val_size: {fitting.val_size:g} of {len(examples)} examples leaves none to train on")
    starts = [max((row + 1 for number, row in examples if number == source.number), default=0) for source in sources]
    made = []
    for source, start in zip(sources, starts, strict=True):
        if start:
            store = Store(unit.piece for unit in units.values() if unit.id[0] == source.number)
            made.append(Tokenised(source.name, store, source.counts_before(start), "streamed"))
    return Aside(tuple(made), tuple(starts))


# The report.


def _publish(run: Run, names: Sequence[str], state: State, size: int, last: bool) -> None:
    """Write the report of ``train`` so far; ``size`` is that of a packed row, else 0."""
    num_rows, num_tokens, num_trained, longest = state.get("totals", (0, 0, 0, 0))
    made: dict[str, Any] = {
        "streamed": True, "num_rows": num_rows, "num_tokens": num_tokens, "num_trained_tokens": num_trained,
        "longest_row": longest, "epochs_finished": state.get("epoch", 0), "datasets": {},
    }  # fmt: skip
    if size:
        made["packing_efficiency"] = round(num_tokens / max(1, num_rows * size), 4)
    for name, place in zip(names, state.get("sources", ()), strict=False):
        counts = dict(Place(*place).seen)
        rows = {"rows_read": counts.pop("rows", 0), "rows_used": counts.pop("used", 0)}
        made["datasets"][name] = {**rows, **counts}
        if last:
            report.warn(name, counts, rows["rows_read"])
    if last:
        log.info("train: %d rows, %d tokens, %d of them trained", num_rows, num_tokens, num_trained)
    reports = run.once("ftk_data.reports", dict)
    reports["train"] = made
    folder = run.plan.value("output_dir")
    if folder and os.environ.get("RANK", "0") == "0":
        Path(folder).mkdir(parents=True, exist_ok=True)
        text = json.dumps(reports, indent=2, ensure_ascii=False) + "\n"
        rundir.write_text(Path(folder) / report.FILE, text)


def _record(run: Run, facts: Mapping[str, Any]) -> None:
    """Note in ``run.json`` what was streamed; a digest of the data would mean reading all of it."""
    known: dict[str, Any] = run.once("ftk_data.facts", dict)
    known.update(facts)
    if os.environ.get("RANK", "0") == "0":
        run.record(data=known)
