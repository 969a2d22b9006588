"""What data sources, templates, trainers and engines share. A library plugin: it declares options, the kind of feature
that a tool dialect is, and the two dialects that many families share.

``ftk_data.renderer(run)`` gives the run's chat template; ``ftk_data.rows:build_chat`` and ``build_text`` are the
``rows`` targets of trainers. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import ftk

from ftk_data.options import DataOptions, TemplateOptions
from ftk_data.react import DEFAULT
from ftk_data.tools import HERMES, ToolFormat

if TYPE_CHECKING:
    from ftk.run import Run

    from ftk_data.rendering import Renderer

__all__ = ["DataOptions", "TemplateOptions", "ToolFormat", "renderer"]


@ftk.hookimpl
def ftk_kinds() -> Iterator[ftk.Kind]:
    yield ftk.Kind(ToolFormat, "ftk_tool_formats", selector="tool_format", within="template")


@ftk.hookimpl
def ftk_tool_formats() -> Iterator[ToolFormat]:
    yield DEFAULT
    yield HERMES


def renderer(run: Run) -> Renderer:
    """The renderer of the run's chat template, made once. See :class:`ftk_data.rendering.Renderer`."""
    from ftk_data.rendering import make_renderer

    return run.once("ftk_data.renderer", lambda: make_renderer(run))
