"""What became of the data: the lines of the log, and ``data_report.json`` in the run directory."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftk import rundir

if TYPE_CHECKING:
    from ftk.run import Run

    from ftk_data.store import Store
    from ftk_data.tokenising import Tokenised

log = logging.getLogger("ftk.data")

FILE = "data_report.json"


def of_store(store: Store) -> dict[str, int]:
    """How many rows and tokens there are."""
    return {
        "num_rows": len(store),
        "num_tokens": store.num_tokens,
        "num_trained_tokens": int(store.trained_N.sum()),
        "longest_row": int(store.lengths_N.max(initial=0)),
    }


def of_dataset(one: Tokenised) -> dict[str, Any]:
    """What went into one data set's rows, what came out, and why the rest did not."""
    counts = dict(one.counts)
    read, used = counts.pop("rows", 0), counts.pop("used", 0)
    return {
        "rows_read": read, "rows_used": used, **of_store(one.store), **counts, "fingerprint": one.fingerprint
    }  # fmt: skip


def warn(name: str, counts: dict[str, int], rows_read: int) -> None:
    """One line for every reason why rows of a data set are not trained as they are."""
    for reason, num in sorted(counts.items()):
        if reason not in ("rows", "used"):
            log.warning("%s: %d of %d rows %s", name, num, rows_read, reason)


def publish(run: Run, split: str, report: dict[str, Any], datasets: Sequence[Tokenised]) -> None:
    """Log the report of a split, write it into the run directory, and note the data in ``run.json``."""
    for one in datasets:
        warn(one.name, one.counts, one.counts.get("rows", 0))
    log.info(
        "%s: %d rows, %d tokens, %d of them trained",
        split, report["num_rows"], report["num_tokens"], report["num_trained_tokens"],
    )  # fmt: skip
    facts = run.once("ftk_data.facts", dict)
    reports = run.once("ftk_data.reports", dict)
    reports[split] = report
    for one in datasets:
        same = facts.get(one.name, {}).get("fingerprint", one.fingerprint) == one.fingerprint
        name = one.name if same else f"{one.name} ({split})"  # of one name and not the same
        facts[name] = {"fingerprint": one.fingerprint, "num_rows": len(one.store)}
    folder = run.plan.value("output_dir")
    if not folder or os.environ.get("RANK", "0") != "0":
        return
    run.record(data=facts)
    Path(folder).mkdir(parents=True, exist_ok=True)
    rundir.write_text(Path(folder) / FILE, json.dumps(reports, indent=2, ensure_ascii=False) + "\n")
