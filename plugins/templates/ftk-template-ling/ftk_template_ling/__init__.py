"""The Ling models of inclusionAI, called Bailing in their code."""

import ftk
from ftk_data import TemplateOptions

from ftk_template_ling.tools import LING


@ftk.hookimpl
def ftk_chat_templates():
    yield ftk.ChatTemplate(
        "bailing",
        source="ftk_template_ling:bailing.jinja",
        stop=("<|endoftext|>",),
        model_types=("bailing_moe",),
        options=TemplateOptions,
        summary="Ling 1 (Ling-lite, Ling-plus); no tools",
    )
    yield ftk.ChatTemplate(
        "bailing_v2",
        system="<role>SYSTEM</role>{content}<|role_end|>",
        user="<role>HUMAN</role>{content}<|role_end|>",
        tool="\n<tool_response>\n{content}\n</tool_response>",
        tool_group=("<role>OBSERVATION</role>", "<|role_end|>"),
        generation="<role>ASSISTANT</role>",
        assistant="{content}<|role_end|>",
        stop=("<|role_end|>", "<|endoftext|>"),
        tool_format="ftk_template_ling.tools:LING",
        model_types=("bailing_moe_v2",),
        options=TemplateOptions,
        summary="Ling 2 (Ling-mini-2.0 and larger)",
    )


@ftk.hookimpl
def ftk_tool_formats():
    yield LING
