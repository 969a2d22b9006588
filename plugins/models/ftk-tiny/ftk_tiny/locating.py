"""From ``ftk://...`` to a folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from ftk import ModelError
from ftk.errors import did_you_mean

if TYPE_CHECKING:
    from ftk.run import Run

TINY_CHAT = Path(__file__).with_name("tiny_chat")
KNOWN = ("ftk://tiny-chat", "ftk://random/llama")


def locate(name: str, run: Run) -> str:
    """The folder of ``ftk://tiny-chat`` or of ``ftk://random/FAMILY?key=value``, which is made when it isn't there.

    Raises ModelError for any other name, and for a family or a key that transformers does not know.
    """
    address = urlsplit(name)
    family = address.path.strip("/")
    where = run.plan.where("model_name_or_path")
    if address.netloc == "tiny-chat" and not family and not address.query:
        return str(TINY_CHAT)
    if address.netloc == "random" and family:
        from ftk_tiny.random_models import random_model

        return str(random_model(family, dict(parse_qsl(address.query, keep_blank_values=True)), cache(), where))
    raise ModelError(f"{where}: there is no such model.{did_you_mean(name, KNOWN)} There is {' and '.join(KNOWN)}")


def cache() -> Path:
    """Where made models are kept: ``$FTK_CACHE/random`` or ``~/.cache/ftk/random``. Safe to delete."""
    return Path(os.environ.get("FTK_CACHE") or Path.home() / ".cache" / "ftk") / "random"
