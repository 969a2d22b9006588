"""A tiny run in a temporary folder: two steps of a random model on four rows, unless the test says otherwise."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from ftk.config import Setting, read_yaml
from ftk.plan import Plan, make_plan
from ftk.registry import Registry
from ftk.run import execute
from ftk.rundir import RECORD
from ftk.types import Metrics


@dataclass(frozen=True)
class Finished:
    """A run that has ended well: what it was, what it reported, and where it wrote."""

    plan: Plan
    metrics: Metrics
    folder: Path

    @property
    def record(self) -> Mapping[str, Any]:
        """The content of ``run.json``."""
        record: Mapping[str, Any] = json.loads((self.folder / RECORD).read_text(encoding="utf-8"))
        return record


def plan_in(folder: Path, **settings: Any) -> Plan:
    """The plan of :func:`run_in`, nothing loaded. Raises what ``ftk run`` would."""
    registry = Registry.discover()
    kit = files("ftk.testing")
    defaults = read_yaml(Path(str(kit / "defaults.yaml")))
    chosen = {key: setting for key, setting in defaults.items() if key in registry.options}
    if "dataset" not in settings:
        rows = folder / "rows.json"
        rows.write_text((kit / "rows.json").read_text(encoding="utf-8"), encoding="utf-8")
        settings["dataset"] = str(rows)
    settings.setdefault("output_dir", str(folder / "out"))
    given = {key: Setting(value, "the test") for key, value in settings.items()}
    return make_plan({**chosen, **given}, registry, config=str(folder / "test.yaml"))


def run_in(folder: Path, **settings: Any) -> Finished:
    """Execute a run whose settings are ``settings`` over tiny defaults (``ftk/testing/defaults.yaml``).

    Data is four rows of instruction, input and output unless ``dataset`` is given; ``output_dir`` is ``folder/out``.
    Raises what ``ftk run`` would.
    """
    plan = plan_in(folder, **settings)
    return Finished(plan, execute(plan), Path(plan.value("output_dir")))
