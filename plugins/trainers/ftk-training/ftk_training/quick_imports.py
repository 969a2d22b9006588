"""A quicker start: import transformers and peft without optional packages that they pull in when they are installed.

``transformers.trainer`` imports datasets (with pandas and pyarrow), and ``peft`` imports bitsandbytes (with
``torch._inductor``), whether a run needs them or not. Together that is two and a half of six seconds.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

HIDDEN = {
    "bitsandbytes": ("is_bitsandbytes_available", "is_bnb_available", "is_bnb_4bit_available"),
    "datasets": ("is_datasets_available",),
    "scipy": ("is_scipy_available",),
    "sklearn": ("is_sklearn_available",),
}
"""Package → the cached questions of transformers and peft about it."""

ASKED_AGAIN = ("bitsandbytes",)
"""Packages whose answer is forgotten before and after, because a later run may need them. The others stay absent for
transformers: its modules that were imported without them would trip over an answer that has changed."""

ASKED_IN = ("transformers.utils.import_utils", "peft.import_utils")


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import statements in this block see the packages of :data:`HIDDEN` as not installed.

    Afterwards ``import datasets`` and ``import bitsandbytes`` work as ever, and quantised runs find bitsandbytes: peft
    and transformers import it where they use it. A package that is imported already stays visible, and so does one
    that transformers was already told of.
    Calls may stand in the block when they only ask for what is installed: peft looks for bitsandbytes whenever it
    builds layers, so ``get_peft_model`` belongs in here, unless the model is quantised.
    The price: transformers' Trainer does not recognise a ``datasets.Dataset``, which ftk never hands to it, and
    ``peft.helpers`` cannot find outliers in bitsandbytes layers, which ftk does not call.
    Not safe beside another thread that imports one of the packages.
    """
    hidden = [name for name in HIDDEN if name not in sys.modules and not _was_told(name)]
    _forget()
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
        _forget()


def _questions(package: str) -> list[Any]:
    modules = [sys.modules[module] for module in ASKED_IN if module in sys.modules]
    found = [getattr(module, name, None) for module in modules for name in HIDDEN[package]]
    return [question for question in found if hasattr(question, "cache_info")]


def _forget() -> None:
    for package in ASKED_AGAIN:
        for question in _questions(package):
            question.cache_clear()


def _was_told(package: str) -> bool:
    """Whether somebody asked for a package, got yes, and will import it without asking again."""
    if package in ASKED_AGAIN:
        return False
    return any(question.cache_info().currsize and question() for question in _questions(package))
