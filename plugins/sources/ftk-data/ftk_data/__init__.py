"""What data sources, templates, trainers and engines share. A library plugin: it declares options and no feature.

``ftk_data.renderer(run)`` gives the run's chat template; ``ftk_data.rows:build_chat`` and ``build_text`` are the
``rows`` targets of trainers. Nothing here imports torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ftk_data.options import DataOptions, TemplateOptions

if TYPE_CHECKING:
    from ftk.run import Run

    from ftk_data.rendering import Renderer

__all__ = ["DataOptions", "TemplateOptions", "renderer"]


def renderer(run: Run) -> Renderer:
    """The renderer of the run's chat template, made once. See :class:`ftk_data.rendering.Renderer`."""
    from ftk_data.rendering import make_renderer

    return run.once("ftk_data.renderer", lambda: make_renderer(run))
