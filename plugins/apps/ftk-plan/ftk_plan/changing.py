"""The user's run with some keys changed, as words of the command line, so that each is a run that he could type."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ftk.opening import plan_run
from ftk.plan import Plan

ALONE: Mapping[str, Any] = {
    "report_to": "none", "launcher": None, "resume_from_checkpoint": None, "overwrite_output_dir": False,
    "push_to_hub": False, "deepspeed": None, "fsdp": None, "tokenized_path": None,
}  # fmt: skip
"""Nothing is sent anywhere or started beside it."""
WEIGHTLESS: Mapping[str, Any] = {
    **ALONE, "train_from_scratch": True, "quantization_bit": None, "quantization_method": None, "device_map": None,
    "adapter_name_or_path": [], "torch_compile": False,
}  # fmt: skip
"""The architecture alone: what would read weights is left out, and quantised weights are counted afterwards."""


def changed(plan: Plan, words: Sequence[str], settings: Mapping[str, Any]) -> Plan:
    """The plan of ``words`` with settings over them; those that nothing installed knows are left out.

    Raises FtkError when they do not go together.
    """
    known = plan.registry.options
    more = [f"--{key}={json.dumps(value)}" for key, value in settings.items() if key in known]
    return plan_run(plan.config, [*words, *more])


def value(plan: Plan, key: str) -> Any:
    """An option, None where no plugin declares it."""
    return plan.value(key) if key in plan.registry.options else None
