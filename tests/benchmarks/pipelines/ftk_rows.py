"""The rows of ``ftk run``, in an environment with ftk. ``--workers`` is ``preprocessing_num_workers`` from 2 on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import ftk_data.rows  # noqa: F401  (imported before the clock starts)
import numpy as np
from ftk.config import Setting
from ftk.plan import make_plan
from ftk.registry import Registry
from ftk.run import Run
from outcome import asked, tell, timed


def pairs(rows) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for row in rows:
        yield row["input_ids"], row["labels"]


def main() -> None:
    given = asked()
    settings = {
        "stage": "sft", "finetuning_type": "full", "model_name_or_path": given.model, "template": "chatml",
        "dataset_dir": given.data, "dataset": given.dataset, "cutoff_len": given.cutoff, "packing": given.packing,
        "output_dir": str(Path(given.out) / "ftk"),
    }  # fmt: skip
    if given.workers > 1:
        settings["preprocessing_num_workers"] = given.workers
    plan = make_plan({key: Setting(value, "here") for key, value in settings.items()}, Registry.discover())
    run = Run(plan)
    padding = run.tokenizer.pad_token_id
    with timed():
        rows = run.rows("train")
    tell(pairs(rows), padding, given.save)


if __name__ == "__main__":
    main()
