"""One line for what transformers and the hub library raise in many."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import transformers
from ftk import FtkError, ModelError
from huggingface_hub import errors as hub
from safetensors import SafetensorError

UNREACHABLE = (hub.LocalEntryNotFoundError, hub.OfflineModeIsEnabled, ConnectionError)


@contextmanager
def explained(where: str) -> Iterator[None]:
    """Turn what loading raises into a ModelError that begins with ``where``. Programming errors pass."""
    try:
        yield
    except FtkError:
        raise
    except (
        OSError,
        ValueError,
        KeyError,
        ImportError,
        RuntimeError,
        SafetensorError,
        hub.StrictDataclassError,
    ) as cause:
        raise ModelError(f"{where}: {in_words(cause)}") from cause


def in_words(cause: BaseException) -> str:
    """What went wrong and what to do about it."""
    text = " ".join(str(cause).split())
    chain = list(_chain(cause))
    if any(isinstance(one, hub.GatedRepoError) for one in chain):
        return "is gated. Accept its licence on its page on the hub, then run hf auth login or set hf_hub_token"
    if any(isinstance(one, hub.RevisionNotFoundError) for one in chain):
        return "the hub has no such model_revision"
    if any(isinstance(one, hub.RepositoryNotFoundError) for one in chain):
        return "is neither a folder nor a model on the hub. Mind the spelling; a private model needs hf_hub_token"
    if any(isinstance(one, UNREACHABLE) for one in chain) or "couldn't connect" in text:
        return _unreachable()
    if "trust_remote_code" in text:
        return "brings its own Python code. Read it, then set trust_remote_code: true to run it"
    unknown = re.search(r"model type [`'\"]?([\w-]+)[`'\"]?", text)
    if unknown and "does not recognize" in text:
        version = transformers.__version__
        return f"model type {unknown[1]} is unknown to transformers {version}. pip install -U transformers may help"
    if isinstance(cause, ImportError) and "Flash" in text:
        return "flash_attn asks for a package that is not installed. Install it, or set flash_attn: auto"
    if isinstance(cause, SafetensorError):
        return f"the weights are damaged: {text}. Download them again"
    return text[:300] or type(cause).__name__


def _unreachable() -> str:
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return "is no folder and not in the download cache. Give a local folder, or unset HF_HUB_OFFLINE to download it"
    return "is no folder and not in the download cache, and the hub cannot be reached. Give a local folder"


def _chain(cause: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = cause
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__
