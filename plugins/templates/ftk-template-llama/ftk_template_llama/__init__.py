"""The Llama families of Meta: Llama 2, Llama 3, Llama 3.1 to 3.3, and those that see."""

from collections.abc import Iterator
from dataclasses import replace

import ftk
from ftk_data import TemplateOptions, ToolFormat

from ftk_template_llama.tools import LLAMA3 as LLAMA3_TOOLS
from ftk_template_llama.tools import LLAMA4 as LLAMA4_TOOLS

IMAGE = {"image": "<|image|>"}

LLAMA2 = ftk.ChatTemplate(
    "llama2",
    user="{bos}[INST] {content} [/INST]",
    tool="{bos}[INST] {content} [/INST]",
    system_in_user="<<SYS>>\n{content}\n<</SYS>>\n\n",
    trim=True,
    assistant=" {content} {eos}",
    options=TemplateOptions,
    summary="Llama 2 Chat",
)
LLAMA3 = ftk.ChatTemplate(
    "llama3",
    prefix="{bos}",
    system="<|start_header_id|>system<|end_header_id|>\n\n{content}<|eot_id|>",
    user="<|start_header_id|>user<|end_header_id|>\n\n{content}<|eot_id|>",
    tool="<|start_header_id|>ipython<|end_header_id|>\n\n{content}<|eot_id|>",
    trim=True,
    generation="<|start_header_id|>assistant<|end_header_id|>\n\n",
    assistant="{content}<|eot_id|>",
    stop=("<|eot_id|>", "<|eom_id|>"),
    tool_format="ftk_template_llama.tools:LLAMA3",
    options=TemplateOptions,
    summary="Llama 3",
)


@ftk.hookimpl
def ftk_chat_templates() -> Iterator[ftk.ChatTemplate]:
    yield replace(LLAMA3, model_types=("llama",))
    yield replace(
        LLAMA3,
        name="llama3.1",
        system_note="Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n",
        summary="Llama 3.1 to 3.3, with the dates that their own template writes",
    )
    yield replace(LLAMA3, name="mllama", media=IMAGE, model_types=("mllama",), summary="Llama 3.2 Vision")
    yield ftk.ChatTemplate(
        "llama4",
        source="ftk_template_llama:llama4.jinja",
        stop=("<|eot|>", "<|eom|>"),
        tool_format="ftk_template_llama.tools:LLAMA4",
        media=IMAGE,
        model_types=("llama4",),
        options=TemplateOptions,
        summary="Llama 4",
    )
    yield LLAMA2
    yield replace(
        LLAMA2,
        name="llama2_zh",
        default_system="You are a helpful assistant. 你是一个乐于助人的助手。",
        trim=False,
        assistant="{content}{eos}",
        tool_format="ftk_data.react:DEFAULT",
        summary="Chinese Llama 2: with a system text, nothing stripped, no spaces around answers",
    )


@ftk.hookimpl
def ftk_tool_formats() -> Iterator[ToolFormat]:
    yield LLAMA3_TOOLS
    yield LLAMA4_TOOLS
