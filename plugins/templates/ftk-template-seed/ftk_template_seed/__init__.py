"""ByteDance's Seed families: Seed-Coder, and Seed-OSS, which thinks and describes its tools as Python functions."""

from collections.abc import Iterator

import ftk
from ftk_data import TemplateOptions, ToolFormat

from ftk_template_seed.tools import SEED_OSS


@ftk.hookimpl
def ftk_chat_templates() -> Iterator[ftk.ChatTemplate]:
    yield ftk.ChatTemplate(
        "seed_coder",
        system="{bos}system\n{content}{eos}",
        user="{bos}user\n{content}{eos}",
        tool="{bos}user\n{content}{eos}",
        generation="{bos}assistant\n",
        assistant="{content}{eos}",
        default_system="You are an AI programming assistant, utilizing the Seed-Coder model, developed by ByteDance "
        "Seed, and you only answer questions related to computer science. For politically sensitive questions, "
        "security and privacy issues, and other non-computer science questions, you will refuse to answer.\n\n",
        tool_format="ftk_data.react:DEFAULT",
        options=TemplateOptions,
        summary="Seed-Coder",
    )
    yield ftk.ChatTemplate(
        "seed_oss",
        source="ftk_template_seed:seed_oss.jinja",
        stop=("<seed:eos>",),
        thinking=("<seed:think>", "</seed:think>\n"),
        tool_format="ftk_template_seed.tools:SEED_OSS",
        model_types=("seed_oss",),
        options=TemplateOptions,
        summary="Seed-OSS: earlier thoughts stay",
    )


@ftk.hookimpl
def ftk_tool_formats() -> Iterator[ToolFormat]:
    yield SEED_OSS
