"""``ftk runs``: which runs there are, what each was, in what they differ, and their curves in one picture."""

from __future__ import annotations

from collections.abc import Iterator

import ftk


@ftk.hookimpl
def ftk_commands() -> Iterator[ftk.Command]:
    yield ftk.Command(
        "runs", target="ftk_runs.command:runs", summary="List, show, compare and plot runs by their directories."
    )
