"""Texts that weights are rounded by, in tokens."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftk import ChatExample, Command, DataError, TextExample
from ftk.plan import make_plan
from ftk.run import Run
from ftk_data import renderer

from ftk_export import ExportOptions

if TYPE_CHECKING:
    from ftk.types import Example

log = logging.getLogger("ftk.export")
READING = Command("export-texts", uses=("source", "converter"))


def texts(run: Run) -> list[list[int]]:
    """At most ``export_quantization_nsamples`` texts of ``export_quantization_maxlen`` tokens or less, by the seed.

    Of longer ones a random piece is taken. Raises DataError when the data set has none.
    """
    options, pick = run.options(ExportOptions), random.Random(run.seed)
    found = list(_ids(run))
    most = options.export_quantization_maxlen
    pick.shuffle(found)
    taken = []
    for ids in found[: options.export_quantization_nsamples]:
        start = pick.randrange(max(len(ids) - most, 0) + 1)
        taken.append(ids[start : start + most])
    where = run.plan.where("export_quantization_dataset")
    if not taken:
        raise DataError(f"{where}: {options.export_quantization_dataset} has no text")
    if len(taken) < options.export_quantization_nsamples:
        log.warning("%s: has %d texts, and %d are asked for", where, len(taken), options.export_quantization_nsamples)
    return taken


def _ids(run: Run) -> Iterator[list[int]]:
    reading = _reading(run)
    for dataset in reading.datasets("train"):
        for row in dataset.open():
            if isinstance(row.get("text"), str) and "formatting" not in dataset.entry.fields:
                example: Example | None = TextExample(row["text"])
            else:
                example = dataset.convert(row)
            if ids := _encoded(example, run):
                yield ids


def _reading(run: Run) -> Run:
    """A run that reads the data set alone."""
    given = run.plan.given["export_quantization_dataset"]
    near = Path(run.plan.config).parent / given.value
    kept = {key: one for key, one in run.plan.given.items() if key in ("dataset_dir", "seed", "plugins")}
    kept["dataset"] = replace(given, value=[str(near.resolve()) if near.is_file() else given.value])
    return Run(make_plan(kept, run.plan.registry, config=run.plan.config, command=READING))


def _encoded(example: Any, run: Run) -> list[int]:
    """The tokens of a text or of a conversation as it is trained; none of what is neither."""
    if isinstance(example, TextExample):
        text = example.text
    elif isinstance(example, ChatExample):
        text = "".join(segment.text for segment in renderer(run).render(example.messages, example.tools)[-1])
    else:
        return []
    return list(run.tokenizer(text, add_special_tokens=False)["input_ids"])
