"""The rows of a run: what trainers name as their ``rows`` target.

Data sets are tokenised (or come from the cache), mixed, split into train and eval, and packed. What comes out behaves
like a list of dicts and keeps nothing but flat arrays.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np
from ftk import ChatExample, DataError, TextExample

import ftk_data
from ftk_data import cache, report
from ftk_data.mixing import mixed, split_off
from ftk_data.options import DataOptions
from ftk_data.packing import packs
from ftk_data.rendering import options_of
from ftk_data.store import IGNORED, Store, joined
from ftk_data.tokenising import Tokenised, tokenise

if TYPE_CHECKING:
    from ftk.run import Run
    from numpy.typing import NDArray

log = logging.getLogger("ftk.data")

UNLIMITED = 2**31
"""A ``cutoff_len`` for documents that become part of a stream."""


class Part(NamedTuple):
    """Rows of a store in the order in which they are trained, and the data sets that they are of."""

    store: Store
    order: NDArray[np.int64]
    datasets: tuple[Tokenised, ...]


class TokenRows(Sequence[dict[str, Any]]):
    """Rows of a store, several together when packed. N: rows.

    groups: the store's rows that make up each row.
    """

    def __init__(self, store: Store, groups: Sequence[Sequence[int]], *, isolated: bool) -> None:
        self.store, self.groups, self.isolated = store, groups, isolated

    def __len__(self) -> int:
        return len(self.groups)

    @property
    def lengths_N(self) -> NDArray[np.int64]:
        """The number of tokens of each row."""
        lengths = self.store.lengths_N
        if isinstance(self.groups, np.ndarray):
            return lengths[self.groups[:, 0]]
        return np.array([int(lengths[group].sum()) for group in self.groups], np.int64)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        pairs = [self.store.row(row) for row in self.groups[index]]
        if not self.isolated:
            return {"input_ids": pairs[0][0], "labels": pairs[0][1]}
        for _, labels_T in pairs:
            labels_T[0] = IGNORED  # what comes before it is another document
        return {
            "input_ids": np.concatenate([ids_T for ids_T, _ in pairs]),
            "labels": np.concatenate([labels_T for _, labels_T in pairs]),
            "position_ids": np.concatenate([np.arange(len(ids_T)) for ids_T, _ in pairs]),
        }


def build_chat(run: Run, split: str) -> Sequence[dict[str, Any]]:
    """The rows of ``train`` or ``eval`` for supervised fine-tuning.

    Each is a dict of numpy int64 arrays: ``input_ids``, ``labels`` (-100 is not trained; not shifted) and, only when
    packed, ``position_ids`` that restart at 0 for each document. An ``eval`` that nobody asked for has length 0.
    Raises DataError when the data cannot be read or nothing of it is left.
    """
    options = options_of(run, DataOptions)
    part = _part(run, split, ChatExample, options)
    packing = bool(options.packing or options.neat_packing)
    return _published(run, split, part, options, packing=packing)


def build_text(run: Run, split: str) -> Sequence[dict[str, Any]]:
    """The rows for pre-training: each document with the end token after it.

    With packing, the default, all documents of a split are one stream that is cut into blocks of ``cutoff_len``; with
    ``neat_packing`` whole documents are packed instead, isolated from each other as :func:`build_chat` does.
    Without packing each document is a row. Keys as in :func:`build_chat`.
    """
    options = options_of(run, DataOptions)
    blocks = options.packing is not False and not options.neat_packing
    fitting = options
    if blocks:
        fitting = replace(options, cutoff_len=UNLIMITED)
    elif options.neat_packing and options.cutoff_policy == "truncate":
        fitting = replace(options, cutoff_policy="split")
    part = _part(run, split, TextExample, fitting)
    if blocks:
        part = _blocks(part, options.cutoff_len)
    return _published(run, split, part, options, packing=options.neat_packing)


def _part(run: Run, split: str, wanted: type, options: DataOptions) -> Part:
    """The rows of a split; those of ``eval`` are its own data sets, or what ``val_size`` sets aside."""
    if split == "eval" and (run.datasets("eval") or not options.val_size):
        return run.once(f"ftk_data.mixed:eval:{wanted.__name__}", lambda: _mixed(run, "eval", wanted, options))
    part = run.once(f"ftk_data.mixed:train:{wanted.__name__}", lambda: _mixed(run, "train", wanted, options))
    if not options.val_size or run.datasets("eval"):
        return part
    train, aside = split_off(part.order, part.store.examples_N, options.val_size, run.seed)
    return part._replace(order=aside if split == "eval" else train)


def _mixed(run: Run, split: str, wanted: type, options: DataOptions) -> Part:
    saved = Path(options.tokenized_path) / f"{split}.npz" if options.tokenized_path else None
    if saved and saved.exists():
        return _load(run, saved)
    renderer = ftk_data.renderer(run) if wanted is ChatExample else None
    datasets = tuple(tokenise(run, dataset, renderer, wanted, options) for dataset in run.datasets(split))
    store = joined([one.store for one in datasets]) if datasets else joined([])
    part = Part(store, mixed([len(one.store) for one in datasets], options, run.seed), datasets)
    if saved and datasets:
        cache.write(saved, store, {"tokenizer": cache.tokenizer_digest(run.tokenizer), "order": part.order.tolist()})
        log.info("%s: %d rows saved", saved, len(store))
    return part


def _load(run: Run, saved: Path) -> Part:
    found = cache.read(saved)
    if found is None:
        raise DataError(f"{saved}: cannot be read. Remove it to tokenise again")
    store, facts = found
    if facts["tokenizer"] != cache.tokenizer_digest(run.tokenizer):
        raise DataError(f"{saved}: was made with another tokenizer. Remove it to tokenise again")
    log.info("%s: %d rows", saved, len(store))
    one = Tokenised(saved.stem, store, {}, cache.file_digest(saved))
    return Part(store, np.array(facts["order"], np.int64), (one,))


def _blocks(part: Part, size: int) -> Part:
    """The rows of a part as one stream, cut into blocks; the last one is shorter."""
    store = part.store
    spans = [np.arange(store.starts[row], store.starts[row + 1]) for row in part.order]
    tokens = np.concatenate(spans) if spans else np.empty(0, np.int64)
    num = -(-len(tokens) // size)
    starts = np.minimum(np.arange(num + 1) * size, len(tokens))
    blocks = Store(store.ids_T[tokens], store.trained_T[tokens], starts, np.arange(num))
    return Part(blocks, np.arange(num), part.datasets)


def _published(run: Run, split: str, part: Part, options: DataOptions, *, packing: bool) -> TokenRows:
    """The rows of a part, packed if asked for, with the report written. Raises DataError when there are none."""
    if not len(part.order) and (split == "train" or part.datasets):
        raise DataError(f"{split}: no row is left to train on{_why(part.datasets)}")
    if packing:
        lengths = part.store.lengths_N[part.order].tolist()
        groups: Sequence[Sequence[int]] = [
            [int(part.order[row]) for row in pack] for pack in packs(lengths, options.cutoff_len)
        ]
    else:
        groups = part.order[:, None]
    rows = TokenRows(part.store, groups, isolated=packing)
    if part.datasets:
        report.publish(run, split, _report(part, rows, options, packing), part.datasets)
    return rows


def _report(part: Part, rows: TokenRows, options: DataOptions, packing: bool) -> dict[str, Any]:
    lengths = part.store.lengths_N[part.order]
    learnt = np.concatenate((np.zeros(1, np.int64), np.cumsum(part.store.trained_T)))
    trained = learnt[part.store.starts[part.order + 1]] - learnt[part.store.starts[part.order]]
    made: dict[str, Any] = {
        "num_rows": len(rows),
        "num_tokens": int(lengths.sum()),
        "num_trained_tokens": int(trained.sum()),
        "longest_row": int(lengths.max(initial=0)),
        "datasets": {one.name: report.of_dataset(one) for one in part.datasets},
    }
    if packing:
        made["packing_efficiency"] = round(made["num_tokens"] / max(1, len(rows) * options.cutoff_len), 4)
    return made


def _why(datasets: Sequence[Tokenised]) -> str:
    reasons = [f"{one.name}: {num} {why}" for one in datasets for why, num in one.counts.items() if why != "rows"]
    return f" ({'; '.join(reasons)})" if reasons else ""
