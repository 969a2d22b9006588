"""``ftk chat``: talk to a model in the terminal."""

from __future__ import annotations

from collections.abc import Iterator

import ftk


@ftk.hookimpl
def ftk_commands() -> Iterator[ftk.Command]:
    yield ftk.Command(
        "chat",
        target="ftk_chat.command:chat",
        uses=("model_loader", "quantizer", "model_patch", "adapter", "template", "media", "engine"),
        summary="Talk to a model, or to what a run has made of it.",
    )
