"""The MiniMax families: M1, and the M2 models, which think and call with tags of their own."""

from collections.abc import Iterator

import ftk
from ftk_data import TemplateOptions, ToolFormat

from ftk_template_minimax.tools import MINIMAX1, MINIMAX2


@ftk.hookimpl
def ftk_chat_templates() -> Iterator[ftk.ChatTemplate]:
    yield ftk.ChatTemplate(
        "minimax1",
        source="ftk_template_minimax:minimax1.jinja",
        default_system="You are a helpful assistant created by Minimax based on MiniMax-M1 model.",
        stop=("<end_of_sentence>",),
        tool_format="ftk_template_minimax.tools:MINIMAX1",
        model_types=("minimax", "minimax_m1"),
        options=TemplateOptions,
        summary="MiniMax-M1",
    )
    yield ftk.ChatTemplate(
        "minimax2",
        source="ftk_template_minimax:minimax2.jinja",
        default_system="You are a helpful assistant. Your name is MiniMax-M2.1 and is built by MiniMax.",
        stop=("[e~[",),
        thinking=("<think>\n", "\n</think>\n\n"),
        tool_format="ftk_template_minimax.tools:MINIMAX2",
        model_types=("minimax_m2",),
        options=TemplateOptions,
        summary="MiniMax-M2 and M2.1: the prompt opens the thought",
    )


@ftk.hookimpl
def ftk_tool_formats() -> Iterator[ToolFormat]:
    yield MINIMAX1
    yield MINIMAX2
