"""The Mistral families. What their own templates write differs too much for formats: each has a file of its own."""

from dataclasses import replace

import ftk
from ftk_data import TemplateOptions

from ftk_template_mistral.tools import DEVSTRAL, MINISTRAL, MISTRAL, MISTRAL_SMALL

WHOLE = ftk.ChatTemplate(
    "mistral",
    source="ftk_template_mistral:v3.jinja",
    stop=("</s>",),
    tool_format="ftk_template_mistral.tools:MISTRAL",
    model_types=("mistral",),
    options=TemplateOptions,
    summary="Mistral 7B Instruct v0.3",
)
DECLARED = ftk.ChatTemplate(
    "ministral",
    prefix="{bos}",
    user="[INST]{content}[/INST]",
    system_in_user="{content}\n\n",
    tool="[TOOL_RESULTS]{content}[/TOOL_RESULTS]",
    stop=("</s>",),
    tool_format="ftk_template_mistral.tools:MINISTRAL",
    model_types=("ministral",),
    options=TemplateOptions,
    summary="Ministral 8B, as LLaMA-Factory writes it",
)


@ftk.hookimpl
def ftk_chat_templates():
    yield WHOLE
    yield replace(
        WHOLE,
        name="mistral_v1",
        source="ftk_template_mistral:v1.jinja",
        tool_format=None,
        model_types=("mixtral",),
        summary="Mistral 7B Instruct v0.1 and v0.2, Mixtral 8x7B Instruct v0.1",
    )
    yield replace(
        WHOLE,
        name="mistral_v3_hf",
        source="ftk_template_mistral:v3_hf.jinja",
        model_types=(),
        summary="Mistral 7B Instruct v0.3 with the spaces that its first chat template wrote",
    )
    yield replace(
        WHOLE,
        name="mistral_small",
        source="ftk_template_mistral:small.jinja",
        tool_format="ftk_template_mistral.tools:MISTRAL_SMALL",
        model_types=("mistral3",),
        media={"image": "[IMG]"},
        summary="Mistral Small 3.1 and 3.2, with images",
    )
    yield replace(
        WHOLE,
        name="devstral",
        source="ftk_template_mistral:devstral.jinja",
        tool_format="ftk_template_mistral.tools:DEVSTRAL",
        model_types=(),
        media={"image": "[IMG]"},
        summary="Devstral Small 1.1",
    )
    yield replace(
        WHOLE,
        name="pixtral",
        source="ftk_template_mistral:pixtral.jinja",
        tool_format=None,
        model_types=("pixtral",),
        media={"image": "[IMG]"},
        summary="Pixtral 12B, with images",
    )
    yield DECLARED
    yield replace(
        DECLARED,
        name="ministral3",
        model_types=("ministral3",),
        media={"image": "[IMG]"},
        summary="Ministral 3, as LLaMA-Factory writes it, with images",
    )


@ftk.hookimpl
def ftk_tool_formats():
    yield from (MISTRAL, MINISTRAL, MISTRAL_SMALL, DEVSTRAL)
