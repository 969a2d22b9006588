"""Under which name tokenised rows are kept: a digest of everything that they depend on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any


def folder() -> Path:
    """Where cached rows lie: ``$FTK_CACHE`` or ``~/.cache/ftk``."""
    return Path(os.environ.get("FTK_CACHE") or Path.home() / ".cache" / "ftk") / "rows"


def digest(parts: Iterable[object]) -> str:
    """A digest of some values, as their JSON or their text."""
    text = json.dumps(list(parts), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def file_digest(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def code_digest(module_file: str | None) -> str:
    """A digest of a module's source, of its whole package when it is one: rows made by other code are made again."""
    if not module_file:
        return ""
    path = Path(module_file)
    files = sorted(path.parent.glob("*.py")) if path.name == "__init__.py" else [path]
    return digest(file_digest(file) for file in files if file.exists())


def tokenizer_digest(tokenizer: Any) -> str:
    """A digest of what a tokenizer does. The files are read where they are, which is much quicker than serialising."""
    home = Path(str(tokenizer.name_or_path))
    added = sorted((token, number) for token, number in tokenizer.get_added_vocab().items())
    facts = [type(tokenizer).__name__, added, len(tokenizer), dict(tokenizer.special_tokens_map)]
    if (home / "tokenizer.json").exists():
        return digest([*facts, *(file_digest(file) for file in sorted(home.glob("*token*")) if file.is_file())])
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return digest([*facts, backend.to_str() if backend is not None else tokenizer.get_vocab()])
