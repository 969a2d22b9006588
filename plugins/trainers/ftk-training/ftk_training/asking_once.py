"""What accelerate and transformers find out anew in every step though it cannot change while a run trains."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager

QUESTIONS = (("accelerate.optimizer", "is_lomo_available"),)
"""(module, function without arguments). This one looks for a package twice a step, in every folder of ``sys.path``:
0.1 ms for each ten folders, and an editable install adds one."""


@contextmanager
def asking_once() -> Iterator[None]:
    """In this block each of :data:`QUESTIONS` is asked once and then remembered."""
    asked = [(sys.modules.get(module), name) for module, name in QUESTIONS]
    found = [(module, name, getattr(module, name)) for module, name in asked if hasattr(module, name)]
    for module, name, question in found:
        setattr(module, name, functools.cache(question))
    try:
        yield
    finally:
        for module, name, question in found:
            setattr(module, name, question)
