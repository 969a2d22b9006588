"""In what runs differ: options, features, versions, data, and what came out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ftk_runs.reading import PastRun

Row = tuple[str, list[Any]]
"""A name, and the value of each run; None where a run has none."""

SAYS_NOTHING = frozenset({"output_dir", "overwrite_output_dir", "run_name"})
TIMES = ("_runtime", "_per_second")
LOGGED_ONLY = frozenset({"step", "total_steps", "seconds", "learning_rate", "num_tokens", "tokens_per_second"})


def differing(values: Sequence[Mapping[str, Any]], *, without: frozenset[str] = frozenset()) -> list[Row]:
    """The names whose values are not the same in all mappings."""
    names = sorted({name for one in values for name in one} - without)
    rows = [(name, [one.get(name) for one in values]) for name in names]
    return [(name, row) for name, row in rows if any(value != row[0] for value in row)]


def metrics_of(runs: Sequence[PastRun]) -> list[Row]:
    """The final metrics of all runs, losses first; those of time last."""
    names = {name for run in runs for name in run.metrics} - LOGGED_ONLY

    def place(name: str) -> tuple[int, str]:
        return (2 if name.endswith(TIMES) else 0 if "loss" in name else 1), name

    return [(name, [run.metrics.get(name) for run in runs]) for name in sorted(names, key=place)]


def compared(runs: Sequence[PastRun]) -> dict[str, list[Row]]:
    """Section → rows. Options, features, versions and data only where they differ; metrics all."""
    return {
        "options": differing([run.options for run in runs], without=SAYS_NOTHING),
        "features": differing([{kind: ", ".join(names) for kind, names in run.chosen.items()} for run in runs]),
        "versions": differing([_versions(run) for run in runs]),
        "data": differing([_data(run) for run in runs]),
        "metrics": metrics_of(runs),
    }


def _versions(run: PastRun) -> dict[str, Any]:
    return {**(run.record.get("plugins") or {}), **(run.record.get("libraries") or {})}


def _data(run: PastRun) -> dict[str, Any]:
    facts = run.record.get("data") or {}
    return {name: f"{fact.get('num_rows')} rows, {str(fact.get('fingerprint'))[:12]}" for name, fact in facts.items()}
