"""``dataset_dir: REMOTE:owner/name``: the ``dataset_info.json`` of a data set repository of the hub."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ftk import ConfigError

FILE = "dataset_info.json"


def fetched(dataset_dir: str, value: Callable[[str], Any]) -> Mapping[str, Any]:
    """The names and entries of the file; ``value(key)`` gives ``hf_hub_token`` and ``cache_dir``.

    Raises ConfigError, in one line, when it cannot be had or holds something else.
    """
    from huggingface_hub import hf_hub_download

    repository = dataset_dir.partition(":")[2].strip("/")
    where = f"dataset_dir: {dataset_dir}"
    if not repository:
        raise ConfigError(f"{where}: expected a repository, as in REMOTE:owner/name")
    try:
        path = hf_hub_download(
            repository, FILE, repo_type="dataset", token=value("hf_hub_token"), cache_dir=value("cache_dir")
        )
        info = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RuntimeError) as cause:  # what the library and json raise, the hub's answers among it
        said = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
        hint = (
            "Mind the spelling; a private one needs hf_hub_token, and without a network it must have been fetched once"
        )
        raise ConfigError(f"{where}: its {FILE} cannot be read: {said}. {hint}") from cause
    if not isinstance(info, dict):
        raise ConfigError(f"{where}: its {FILE}: expected a mapping of names to entries, found {type(info).__name__}")
    return info
