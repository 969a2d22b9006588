"""``ftk caps``: which installed features go together, read off their specs."""

from __future__ import annotations

from collections.abc import Iterator

import ftk


@ftk.hookimpl
def ftk_commands() -> Iterator[ftk.Command]:
    yield ftk.Command("caps", target="ftk_caps.command:caps", summary="Show which installed features go together.")
