"""What trainers share, on top of transformers' Trainer. A library plugin: it declares options and no feature.

A stage is a few lines: its rows come from ``ftk_data``, its loss is the model's own or a function, and the rest is
:func:`ftk_training.fitting.fit`. Nothing here imports torch; the modules behind do.
"""

from __future__ import annotations

from ftk_training.options import TrainingOptions

__all__ = ["TrainingOptions"]
