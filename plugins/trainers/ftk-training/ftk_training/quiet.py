"""A model that is only asked something."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def quiet(model: Any) -> Iterator[None]:
    """The model without dropout and gradients, and afterwards as it was, each module by itself."""
    training = [module for module in model.modules() if module.training]
    random_state = torch.get_rng_state()
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True
        torch.set_rng_state(random_state)
