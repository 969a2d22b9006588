"""The Gemma families of Google, and PaliGemma."""

from dataclasses import replace

import ftk
from ftk_data import TemplateOptions

from ftk_template_gemma.tools import GEMMA4 as GEMMA4_CALLS

GEMMA = ftk.ChatTemplate(
    "gemma",
    prefix="{bos}",
    user="<start_of_turn>user\n{content}<end_of_turn>\n",
    tool="<start_of_turn>tool\n{content}<end_of_turn>\n",
    system_in_user="{content}\n\n",
    trim=True,
    generation="<start_of_turn>model\n",
    assistant="{content}<end_of_turn>",
    assistant_end="\n",
    stop=("<end_of_turn>",),
    model_types=("gemma",),
    options=TemplateOptions,
    summary="Gemma",
)
GEMMA4 = ftk.ChatTemplate(
    "gemma4",
    source="ftk_template_gemma:gemma4.jinja",
    thinking=("<|channel>thought\n", "\n<channel|>"),
    stop=("<turn|>", "<|tool_response>"),
    tool_format="ftk_template_gemma.tools:GEMMA4",
    model_types=("gemma4", "gemma4_text"),
    media={"image": "<|image|>", "video": "<|video|>"},
    options=TemplateOptions,
    summary="Gemma 4: reasoning, tools, images and videos",
)


@ftk.hookimpl
def ftk_chat_templates():
    yield GEMMA
    yield replace(
        GEMMA, name="gemma2", stop=("<end_of_turn>", "<eos>"), model_types=("gemma2",), summary="Gemma 2, as Gemma"
    )
    yield replace(
        GEMMA,
        name="gemma3",
        source="ftk_template_gemma:gemma3.jinja",
        model_types=("gemma3", "gemma3_text"),
        media={"image": "<start_of_image>"},
        summary="Gemma 3, with images",
    )
    yield replace(
        GEMMA,
        name="gemma3n",
        model_types=("gemma3n", "gemma3n_text"),
        media={"image": "<image_soft_token>", "audio": "<audio_soft_token>"},
        summary="Gemma 3n, with images and audio",
    )
    yield GEMMA4
    yield replace(
        GEMMA4,
        name="gemma4n",
        model_types=(),
        media={"image": "<|image|>", "video": "<|video|>", "audio": "<|audio|>"},
        summary="The small Gemma 4 models, which also hear: as gemma4, with audio",
    )
    yield ftk.ChatTemplate(
        "paligemma",
        prefix="{bos}",
        user="{content}\n",
        tool="{content}\n",
        system_in_user="{content}",
        tool_format="ftk_data.react:DEFAULT",
        model_types=("paligemma",),
        media={"image": "<image>"},
        options=TemplateOptions,
        summary="PaliGemma: a question, a newline, the answer",
    )
    yield replace(
        GEMMA,
        name="paligemma_chat",
        system_in_user="{content}",
        tool_format="ftk_data.react:DEFAULT",
        trim=False,
        model_types=(),
        media={"image": "<image>"},
        summary="PaliGemma with Gemma's turns",
    )


@ftk.hookimpl
def ftk_tool_formats():
    yield GEMMA4_CALLS
