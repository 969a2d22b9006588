"""A data set as tokenised rows: examples are rendered here while other threads encode, and the result is cached."""

from __future__ import annotations

import inspect
import logging
import os
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from ftk import ChatExample, DataError, Message, Segment, TextExample

import ftk_data
from ftk_data import cache
from ftk_data.encoding import Encoder
from ftk_data.fitting import Fitted, fit
from ftk_data.options import DataOptions
from ftk_data.reading import Reader
from ftk_data.rendering import template_options, thinking_of
from ftk_data.store import Store, collected

if TYPE_CHECKING:
    from ftk.run import Dataset, Run
    from ftk.types import Example
    from numpy.typing import NDArray

    from ftk_data.rendering import Renderer, Row

log = logging.getLogger("ftk.data")

IRRELEVANT = {
    "mix_strategy", "interleave_probs", "val_size", "packing", "neat_packing", "preprocessing_num_workers",
    "preprocessing_batch_size", "overwrite_cache", "tokenized_path",
}  # fmt: skip
"""Options that do not change the rows of a data set."""


class Tokenised(NamedTuple):
    """A data set's rows and what became of it."""

    name: str
    store: Store
    counts: dict[str, int]
    fingerprint: str


class Pending(NamedTuple):
    """Rows of a batch with the number of the example that each came from."""

    rows: list[Row]
    examples: list[int]


def tokenise(run: Run, dataset: Dataset, renderer: Renderer | None, wanted: type, options: DataOptions) -> Tokenised:
    """All rows of a data set, from the cache when nothing has changed. ``renderer`` is None for plain text.

    Raises DataError for a malformed row, see ``on_bad_row``, and for a long one under ``cutoff_policy: error``.
    """
    reader = Reader(dataset, wanted, options, run.seed)
    fingerprint = reader.rows.fingerprint()
    path = cache.folder() / f"{_key(run, dataset, renderer, fingerprint, options)}.npz"
    found = None if options.overwrite_cache else cache.read(path)
    if found:
        log.info("%s: %d rows from the cache (%s)", dataset.name, len(found[0]), path)
        return Tokenised(dataset.name, found[0], found[1]["counts"], fingerprint)
    started = time.perf_counter()
    work = _Work(reader, renderer, Encoder(run.tokenizer), options)
    store = collected(work.batches())
    counts = dict(work.counts)
    took = time.perf_counter() - started
    log.info("%s: %d rows, %d tokens in %.1f s", dataset.name, len(store), len(store.ids_T), took)
    cache.write(path, store, {"counts": counts})
    return Tokenised(dataset.name, store, counts, fingerprint)


def _key(run: Run, dataset: Dataset, renderer: Renderer | None, fingerprint: str, options: DataOptions) -> str:
    convert = dataset.planned.converter.load()
    template = run.template if renderer else None
    code = [ftk_data.__file__, inspect.getsourcefile(convert)]
    if template and template.target:
        code.append(inspect.getsourcefile(template.load()))
    return cache.digest(
        [
            fingerprint,
            {key: str(value) for key, value in sorted(dataset.entry.fields.items())},
            [cache.code_digest(file) for file in code],
            template.id if template else "",
            renderer.jinja() if renderer else "",
            str(thinking_of(run)),
            {key: str(value) for key, value in asdict(template_options(run)).items()},
            {key: str(value) for key, value in asdict(options).items() if key not in IRRELEVANT},
            cache.tokenizer_digest(run.tokenizer),
            run.seed if "num_samples" in dataset.entry.fields else 0,
        ]
    )


class _Work:
    """One pass over a data set. ``counts`` is complete when the batches have been drawn."""

    def __init__(self, reader: Reader, renderer: Renderer | None, encoder: Encoder, options: DataOptions) -> None:
        self.reader, self.renderer, self.encoder, self.options = reader, renderer, encoder, options
        self.counts: Counter[str] = reader.counts

    def batches(self) -> Iterator[tuple[NDArray[np.int64], Fitted]]:
        """Each batch encoded and fitted, in order, with the example numbers of its rows."""
        workers = self.options.preprocessing_num_workers
        with _tokenizer_threads(workers), ThreadPoolExecutor(workers or 1) as pool:
            waiting: deque[tuple[Pending, Future[Fitted]]] = deque()
            for pending in self._rendered():
                waiting.append((pending, pool.submit(self._encoded, pending)))
                if len(waiting) > 2 * (workers or 1):
                    yield self._done(*waiting.popleft())
            while waiting:
                yield self._done(*waiting.popleft())

    def _encoded(self, pending: Pending) -> Fitted:
        batch = self.encoder.rows(pending.rows)
        return fit(batch, self.options, lambda row: self.reader.where(pending.examples[row]))

    def _done(self, pending: Pending, future: Future[Fitted]) -> tuple[NDArray[np.int64], Fitted]:
        fitted = future.result()
        self.counts.update(fitted.counts)
        return np.array(pending.examples, np.int64), fitted

    def _rendered(self) -> Iterator[Pending]:
        examples = iter(self.reader)
        while chunk := list(islice(examples, self.options.preprocessing_batch_size)):
            pending = Pending([], [])
            for index, example in chunk:
                for row in self._rows(index, example):
                    pending.rows.append(row)
                    pending.examples.append(index)
            yield pending

    def _rows(self, index: int, example: Example) -> Sequence[Row]:
        if isinstance(example, TextExample):
            return [[Segment(example.text + (self.encoder.tokenizer.eos_token or ""), True)]]
        assert isinstance(example, ChatExample)
        assert self.renderer
        try:
            rows = self.renderer.render(with_flags(example.messages, self.options), example.tools)
        except DataError as cause:
            self.reader.bad(f"{self.reader.where(index)}: {cause}", cause)
            return []
        if self.options.train_on_prompt:
            return [[Segment(segment.text, True) for segment in row] for row in rows]
        return rows


def with_flags(messages: Sequence[Message], options: DataOptions) -> Sequence[Message]:
    """The messages with ``mask_history`` applied: only the last answer is trained."""
    if not options.mask_history:
        return messages
    last = max((i for i, message in enumerate(messages) if message.role == "assistant"), default=-1)
    return [replace(message, trained=message.trained if i == last else False) for i, message in enumerate(messages)]


@contextmanager
def _tokenizer_threads(workers: int | None) -> Iterator[None]:
    """With workers of our own, the tokenizer's are off: two pools would fight over the cores."""
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    if workers is None:
        yield
        return
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = before
