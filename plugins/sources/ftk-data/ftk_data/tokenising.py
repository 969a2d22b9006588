"""A data set as tokenised rows, from the cache as far as they are there."""

from __future__ import annotations

import inspect
import logging
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

import ftk_data
from ftk_data import cache
from ftk_data.options import DataOptions
from ftk_data.reading import SKIPPED, Reader
from ftk_data.rendering import template_options, thinking_of
from ftk_data.shards import Shards
from ftk_data.stages import TEXT, Stage
from ftk_data.store import Store
from ftk_data.work import Work

if TYPE_CHECKING:
    from ftk.run import Dataset, Run

    from ftk_data.rendering import Renderer

log = logging.getLogger("ftk.data")

IRRELEVANT = {
    "mix_strategy", "interleave_probs", "val_size", "packing", "neat_packing", "preprocessing_num_workers",
    "preprocessing_batch_size", "overwrite_cache", "tokenized_path", "streaming", "buffer_size", "eval_on_each_dataset",
}  # fmt: skip
"""Options that do not change the rows of a data set."""


class Tokenised(NamedTuple):
    """A data set's rows and what became of it."""

    name: str
    store: Store
    counts: dict[str, int]
    fingerprint: str


def tokenise(run: Run, dataset: Dataset, stage: Stage, options: DataOptions) -> Tokenised:
    """All rows of a data set, from the cache when nothing has changed.

    Several processes, ranks or workers, share the work through the cache. Raises DataError for a malformed row, see
    ``on_bad_row``, and for a long one under ``cutoff_policy: error``.
    """
    reader = Reader(dataset, stage.wanted, options, run.seed)
    renderer = None if stage is TEXT else ftk_data.renderer(run)
    fingerprint = reader.rows.fingerprint()
    shards = Shards(cache.folder() / _key(run, dataset, stage, renderer, fingerprint, options))
    if options.overwrite_cache:
        run.once(f"ftk_data.cleared:{shards.folder}", shards.clear)
    started = time.perf_counter()
    known = shards.num is not None
    work = Work(reader, renderer, run.tokenizer, media_encoder(run) if renderer else None, stage, options)
    with _workers(work, shards, options.preprocessing_num_workers):
        made = work.fill(shards)
    pieces, counts = [], Counter[str]()
    for number in range(shards.num or 0):
        piece, facts = made.get(number) or shards.read(number) or work.again(shards, number)
        pieces.append(piece)
        counts.update(facts["counts"])
    store = Store(pieces)
    took = time.perf_counter() - started
    origin = f"from the cache ({shards.folder})" if known else f"{store.num_tokens} tokens in {took:.1f} s"
    log.info("%s: %d rows, %s", dataset.name, len(store), origin)
    if known and work.media and counts[SKIPPED]:  # a file may be there now that was missing then
        again = "overwrite_cache: true reads them again"
        log.warning("%s: %d rows were skipped when they were first read. %s", dataset.name, counts[SKIPPED], again)
    return Tokenised(dataset.name, store, dict(counts), fingerprint)


def media_encoder(run: Run) -> Any:
    """What turns media into tokens for the run's model, None when nothing does."""
    return getattr(run, "media", None)


def _key(
    run: Run, dataset: Dataset, stage: Stage, renderer: Renderer | None, fingerprint: str, options: DataOptions
) -> str:
    convert = dataset.planned.converter.load()
    template = run.template if renderer else None
    code = [ftk_data.__file__, inspect.getsourcefile(convert)]
    if template and template.target:
        code.append(inspect.getsourcefile(template.load()))
    media = media_encoder(run) if renderer else None
    if media:
        code.append(inspect.getsourcefile(type(media)))
    return cache.digest(
        [
            ftk_data.shards.SHARD,
            stage.name,
            fingerprint,
            {key: str(value) for key, value in sorted(dataset.entry.fields.items())},
            dataset.entry.folder if media else "",
            [cache.code_digest(file) for file in code],
            template.id if template else "",
            renderer.jinja() if renderer else "",
            str(thinking_of(run)) if renderer else "",
            {key: str(value) for key, value in asdict(template_options(run)).items()} if renderer else {},
            {key: str(value) for key, value in asdict(options).items() if key not in IRRELEVANT},
            cache.tokenizer_digest(run.tokenizer),
            bool(getattr(run.tokenizer, "split_special_tokens", False)),
            str(getattr(media, "fingerprint", lambda: "")()) if media else "",
            run.seed if "num_samples" in dataset.entry.fields else 0,
        ]
    )


@contextmanager
def _workers(work: Work, shards: Shards, num: int | None) -> Iterator[None]:
    """Further processes that make shards beside this one, where there is enough to do for several.

    They begin as copies of this process, so nothing is loaded again; where the system cannot copy one, there are none.
    One that fails leaves its shard to this process, which then meets the same error and tells it.
    """
    rows = work.reader.num_rows
    enough = num and num > 1 and (rows is None or rows > shards.size) and shards.num is None
    if not enough or "fork" not in multiprocessing.get_all_start_methods():
        yield
        return
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # a pool in each process would fight over the cores
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_work, args=(work, shards), daemon=True) for _ in range(int(num or 1) - 1)]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.terminate()
            process.join()
        if before is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = before


def _work(work: Work, shards: Shards) -> None:
    """What a further process does. Its errors are met and told by the first process."""
    try:
        work.fill(shards)
    except (Exception, KeyboardInterrupt) as error:
        log.debug("a worker gave up: %s", error)
