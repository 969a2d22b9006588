"""The rows of a run: what trainers name as their ``rows`` target.

Data sets are tokenised (or come from the cache), mixed, split into train and eval, and packed.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from ftk import ConfigError, DataError

from ftk_data import cache, report, shards, streaming
from ftk_data.mixing import mixed, split_off
from ftk_data.options import DataOptions
from ftk_data.packing import pack
from ftk_data.rendering import options_of
from ftk_data.sequences import (
    BlockRows,
    FeedbackRows,
    PackedFeedbackRows,
    PackedPairRows,
    PackedRows,
    PairRows,
    PromptRows,
    TokenRows,
)
from ftk_data.stages import CHAT, CHOSEN, FEEDBACK, PAIRS, PROMPTS, TEXT, Stage
from ftk_data.store import Store, joined
from ftk_data.tokenising import Tokenised, tokenise

if TYPE_CHECKING:
    from ftk.run import Run
    from numpy.typing import NDArray

log = logging.getLogger("ftk.data")
Made = TokenRows | Mapping[str, TokenRows] | streaming.StreamRows

UNLIMITED = 2**31
"""A ``cutoff_len`` for documents that become part of a stream."""


class Part(NamedTuple):
    """Rows of a store in the order in which they are trained, and the data sets that they are of.

    order: of a pair it has the chosen row only; the rejected one stands after it.
    """

    store: Store
    order: NDArray[np.int64]
    datasets: tuple[Tokenised, ...]


def build_chat(run: Run, split: str) -> Made:
    """The rows of ``train`` or ``eval`` for supervised fine-tuning; see :class:`ftk_data.sequences.TokenRows`.

    An ``eval`` that nobody asked for has length 0; with ``eval_on_each_dataset`` it is a mapping of data sets.
    Raises DataError when the data cannot be read or nothing of it is left.
    """
    return _built(run, split, CHAT, options_of(run, DataOptions))


def build_text(run: Run, split: str) -> Made:
    """The rows for pre-training: each document with the end token after it.

    With packing, the default, all documents of a split are one stream that is cut into blocks of ``cutoff_len``; with
    ``neat_packing`` whole documents are packed instead, isolated from each other as :func:`build_chat` does.
    Without packing each document is a row.
    """
    return _built(run, split, TEXT, options_of(run, DataOptions))


def build_pairs(run: Run, split: str) -> Made:
    """The rows for preferences: a prompt with a chosen and with a rejected answer; see ``PairRows``."""
    return _built(run, split, PAIRS, options_of(run, DataOptions))


def build_feedback(run: Run, split: str) -> Made:
    """The rows for KTO: an answer that was liked or not; see ``FeedbackRows`` and, with packing, its packs."""
    return _built(run, split, FEEDBACK, options_of(run, DataOptions))


def build_prompts(run: Run, split: str) -> Made:
    """Prompts that a model is to answer, with the reference answer where there is one; see ``PromptRows``.

    A prompt that is longer than ``cutoff_len`` is left out and counted: cut, it would ask for something else.
    """
    return _built(run, split, PROMPTS, options_of(run, DataOptions))


def _built(run: Run, split: str, stage: Stage, options: DataOptions) -> Made:
    _check_stage(run, stage, options)
    fitting = options
    if stage is TEXT:
        if _in_blocks(options):
            fitting = replace(options, cutoff_len=UNLIMITED)
        elif options.neat_packing and options.cutoff_policy == "truncate":
            fitting = replace(options, cutoff_policy="split")
    if options.streaming and split == "train":
        return streaming.stream(run, stage, options, fitting)
    part = _part(run, split, stage, fitting)
    if split == "eval" and options.eval_on_each_dataset and len(part.datasets) > 1:
        return {
            one.datasets[0].name: _published(run, f"eval {one.datasets[0].name}", one, stage, options)
            for one in _each(part, stage, whole=bool(run.datasets("eval")))
        }
    return _published(run, split, part, stage, options)


def _check_stage(run: Run, stage: Stage, options: DataOptions) -> None:
    """Raise ConfigError for what this stage cannot do, and warn of what has no effect in it."""
    for key in stage.refuses:
        if getattr(options, key):
            raise ConfigError(f"{run.plan.where(key)}: has no meaning for rows of {stage.name}. Take it out")
    if options.packing and stage not in ((CHAT, TEXT) if options.streaming else (CHAT, TEXT, PAIRS, FEEDBACK)):
        log.warning("%s: rows of %s are not packed", run.plan.where("packing"), stage.name)


def _each(part: Part, stage: Stage, *, whole: bool) -> Iterator[Part]:
    """The rows of each data set by itself: all of them, or those that were set aside."""
    first = 0
    for one in part.datasets:
        last = first + len(one.store)
        aside = part.order[(part.order >= first) & (part.order < last)] - first
        order = _units(one.store, stage) if whole else aside
        if len(order):
            yield Part(one.store, order, (one,))
        first = last


def _in_blocks(options: DataOptions) -> bool:
    return options.packing is not False and not options.neat_packing


def _units(store: Store, stage: Stage) -> NDArray[np.int64]:
    """The rows that are drawn when data sets are mixed or split: one for each pair."""
    return np.flatnonzero(store.roles_N == CHOSEN) if stage is PAIRS else np.arange(len(store))


def _part(run: Run, split: str, stage: Stage, options: DataOptions) -> Part:
    """The rows of a split; those of ``eval`` are its own data sets, or what ``val_size`` sets aside."""
    if split == "eval" and (run.datasets("eval") or not options.val_size):
        return run.once(f"ftk_data.mixed:eval:{stage.name}", lambda: _mixed(run, "eval", stage, options))
    if options.streaming:
        datasets = streaming.set_aside(run, stage, options).datasets
        store = joined([one.store for one in datasets])
        return Part(store, _units(store, stage), datasets)
    part = run.once(f"ftk_data.mixed:train:{stage.name}", lambda: _mixed(run, "train", stage, options))
    if not options.val_size or run.datasets("eval"):
        return part
    train, aside = split_off(part.order, part.store.examples_N, options.val_size, run.seed)
    return part._replace(order=aside if split == "eval" else train)


def _mixed(run: Run, split: str, stage: Stage, options: DataOptions) -> Part:
    saved = Path(options.tokenized_path) / split if options.tokenized_path else None
    if saved and (saved / "facts.json").exists():
        return _load(run, saved, stage)
    datasets = tuple(tokenise(run, dataset, stage, options) for dataset in run.datasets(split))
    store = joined([one.store for one in datasets])
    order = mixed([len(_units(one.store, stage)) for one in datasets], options, run.seed)
    part = Part(store, _units(store, stage)[order], datasets)
    if saved and datasets:
        _save(run, saved, part, stage)
    return part


def _save(run: Run, folder: Path, part: Part, stage: Stage) -> None:
    """Keep rows in a folder of the user's own. Raises DataError when it cannot be written."""
    try:
        for number, piece in enumerate(part.store.pieces):
            shards.put(folder / f"{number:06d}.safetensors", shards.packed(piece, {}))
        facts = {
            "tokenizer": cache.tokenizer_digest(run.tokenizer), "stage": stage.name,
            "num_files": len(part.store.pieces), "order": part.order.tolist(),
        }  # fmt: skip
        shards.put(folder / "facts.json", json.dumps(facts).encode())
    except OSError as cause:
        raise DataError(f"tokenized_path: {folder} cannot be written: {cause.strerror}") from cause
    log.info("%s: %d rows saved", folder, len(part.store))


def _load(run: Run, folder: Path, stage: Stage) -> Part:
    """The rows of such a folder. Raises DataError when it is damaged or of another tokenizer or stage."""
    hint = "Remove the folder to tokenise again"
    try:
        facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        order = np.array(facts["order"], np.int64)
        files = [folder / f"{number:06d}.safetensors" for number in range(facts["num_files"])]
    except (OSError, ValueError, KeyError, TypeError) as cause:
        raise DataError(f"tokenized_path: {folder} is damaged: {cause}. {hint}") from cause
    if facts["tokenizer"] != cache.tokenizer_digest(run.tokenizer):
        raise DataError(f"tokenized_path: {folder} was made with another tokenizer. {hint}")
    if facts["stage"] != stage.name:
        raise DataError(f"tokenized_path: {folder} holds rows for {facts['stage']}, not for {stage.name}. {hint}")
    pieces = [shards.read(file, keep=True) for file in files]
    if any(piece is None for piece in pieces):
        raise DataError(f"tokenized_path: {folder} is damaged. {hint}")
    store = Store(piece for piece, _ in filter(None, pieces))
    log.info("%s: %d rows", folder, len(store))
    counts = {"rows": len(store), "used": len(store)}
    return Part(store, order, (Tokenised(folder.name, store, counts, cache.digest([facts["tokenizer"], str(folder)])),))


def _published(run: Run, split: str, part: Part, stage: Stage, options: DataOptions) -> TokenRows:
    """The rows of a part as the stage wants them, with the report written. Raises DataError when there are none."""
    if not len(part.order) and (split == "train" or part.datasets):
        raise DataError(f"{split}: no row is left to train on{_why(part.datasets)}")
    rows = _arranged(part, stage, options)
    if part.datasets:
        report.publish(run, split, _report(part, rows, options), part.datasets)
    return rows


def _arranged(part: Part, stage: Stage, options: DataOptions) -> TokenRows:
    packing = bool(options.packing or options.neat_packing)
    if stage is PAIRS:
        pairs = PairRows(part.store, part.order)
        if not packing:
            return pairs
        return PackedPairRows(part.store, part.order, pack(pairs.lengths_N, options.cutoff_len))
    if stage is FEEDBACK:
        return (PackedFeedbackRows if packing else FeedbackRows)(part.store, part.order, options.cutoff_len)
    if stage is PROMPTS:
        return PromptRows(part.store, part.order, _firsts(part))
    if stage is TEXT and _in_blocks(options):
        return BlockRows(part.store, part.order, options.cutoff_len)
    if packing:
        return PackedRows(part.store, part.order, pack(part.store.lengths_N[part.order], options.cutoff_len))
    return TokenRows(part.store, part.order)


def _firsts(part: Part) -> list[tuple[str, int]]:
    """Each data set with the number of its first example in the part's store."""
    sizes = [int(one.store.examples_N.max(initial=-1)) + 1 for one in part.datasets]  # as ``joined`` numbers them
    return list(zip((one.name for one in part.datasets), np.cumsum([0, *sizes]).tolist(), strict=False))


def examples_of(run: Run, split: str, stage: Stage, options: DataOptions) -> list[tuple[str, int]]:
    """Of which examples the rows of a split are made: (data set, number of the row in its source), each once."""
    part = _part(run, split, stage, options)
    firsts = _firsts(part)
    found: list[tuple[str, int]] = []
    for number in np.unique(part.store.examples_N[part.order]).tolist():
        name, first = next(one for one in reversed(firsts) if one[1] <= number)
        found.append((name, number - first))
    return found


def _report(part: Part, rows: TokenRows, options: DataOptions) -> dict[str, Any]:
    lengths = part.store.lengths_N[rows.members]
    made: dict[str, Any] = {
        "num_rows": len(rows),
        "num_tokens": int(lengths.sum()),
        "num_trained_tokens": int(part.store.trained_N[rows.members].sum()),
        "longest_row": int(lengths.max(initial=0)),
        "datasets": {one.name: report.of_dataset(one) for one in part.datasets},
    }
    if isinstance(rows, PackedRows | PackedPairRows | PackedFeedbackRows):
        sides = 2 if isinstance(rows, PackedPairRows) else 1
        made["packing_efficiency"] = round(made["num_tokens"] / max(1, sides * len(rows) * options.cutoff_len), 4)
    return made


def _why(datasets: Sequence[Tokenised]) -> str:
    reasons = [
        f"{one.name}: {num} {why}" for one in datasets for why, num in one.counts.items() if why not in ("rows", "used")
    ]
    reasons += [f"{one.name}: has no rows" for one in datasets if not one.counts.get("rows")]
    return f" ({'; '.join(reasons)})" if reasons else ""
