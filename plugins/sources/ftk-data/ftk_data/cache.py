"""Tokenised rows on disk, under a digest of everything that they depend on.

Files are ``.npz`` without pickle, written aside and renamed. One that cannot be read, for
whatever reason, is made again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zipfile
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ftk_data.store import Store

if TYPE_CHECKING:
    from numpy.typing import NDArray

log = logging.getLogger("ftk.data")

PARTS = ("ids_T", "trained_T", "starts", "examples_N")


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


def read(path: Path) -> tuple[Store, dict[str, Any]] | None:
    """The rows in a file with what was noted about them, or None when there are none that can be read."""
    try:
        with np.load(path, allow_pickle=False) as file:
            store = Store(*(file[part] for part in PARTS))
            facts: dict[str, Any] = json.loads(bytes(file["facts"]).decode())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        log.warning("%s: is damaged and is made again: %s", path, error)
        return None
    whole = len(store.ids_T) == len(store.trained_T) == store.starts[-1] and len(store) == len(store.examples_N)
    return (store, facts) if whole else None


def write(path: Path, store: Store, facts: Mapping[str, Any]) -> None:
    """Write rows so that a reader sees all of them or none. A disk that does not take them costs a warning only."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    arrays: dict[str, NDArray[Any]] = {part: getattr(store, part) for part in PARTS}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("wb") as file:
            np.savez(file, facts=np.frombuffer(json.dumps(facts).encode(), np.uint8), **arrays)  # type: ignore[arg-type]
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        log.warning("%s: tokenised rows are not kept: %s", path, error)
