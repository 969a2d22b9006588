"""For tests of checks that other plugins bring."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from ftk_training.checks import Check, Outcome

from ftk_verify.bench import Bench
from ftk_verify.verify_command import tried


def outcome_in(folder: Path, name: str, **settings: Any) -> Outcome:
    """What the check ``name`` says of a run with these settings, whose config is written into ``folder``."""
    config = folder / "run.yaml"
    config.write_text(json.dumps({"output_dir": str(folder / "mine"), "use_cpu": True, **settings}))
    with tempfile.TemporaryDirectory(dir=folder) as aside:
        bench = Bench(str(config), (), Path(aside))
        return tried(bench.plan.registry.find(Check.kind, name), bench).outcome  # type: ignore[arg-type]
