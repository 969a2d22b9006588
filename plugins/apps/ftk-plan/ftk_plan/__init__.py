"""``ftk plan``: what a run will cost, from its config and rows, without its weights."""

from __future__ import annotations

from collections.abc import Iterator

import ftk


@ftk.hookimpl
def ftk_commands() -> Iterator[ftk.Command]:
    yield ftk.Command(
        "plan",
        target="ftk_plan.plan_command:plan",
        summary="Steps, tokens, parameters and memory of a run, and whether it fits, before it is made.",
    )
