"""``ftk template`` and ``ftk data``: chat templates and training rows, shown without training."""

from __future__ import annotations

from collections.abc import Iterator

import ftk


@ftk.hookimpl
def ftk_commands() -> Iterator[ftk.Command]:
    yield ftk.Command(
        "template",
        target="ftk_inspect.template_command:template",
        uses=("model_loader", "template"),
        summary="Show a chat template, render with it, compare it with the model's own.",
    )
    yield ftk.Command(
        "data",
        target="ftk_inspect.data_command:data",
        uses=("model_loader", "source", "converter", "template", "media", "trainer"),
        summary="Look at the rows that a run would train, and at what became of the data.",
    )
