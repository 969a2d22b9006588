"""The DeepSeek families: LLM, Coder, V3, R1 and what was distilled from R1."""

from dataclasses import replace

import ftk
from ftk_data import TemplateOptions

from ftk_template_deepseek.tools import DEEPSEEK

CODER_SYSTEM = (
    "You are an AI programming assistant, utilizing the Deepseek Coder model, developed by Deepseek Company, and you "
    "only answer questions related to computer science. For politically sensitive questions, security and privacy "
    "issues, and other non-computer science questions, you will refuse to answer\n"
)

R1 = ftk.ChatTemplate(
    "deepseekr1",
    source="ftk_template_deepseek:deepseekr1.jinja",
    stop=("<｜end▁of▁sentence｜>",),
    thinking=("<think>\n", "\n</think>\n\n"),
    options=TemplateOptions,
    summary="DeepSeek R1: reasoning first",
)


@ftk.hookimpl
def ftk_chat_templates():
    yield R1
    yield replace(
        R1,
        name="deepseekr1_distill",
        source="ftk_template_deepseek:deepseekr1_distill.jinja",
        summary="The Qwen and Llama models distilled from DeepSeek R1",
    )
    yield replace(
        R1,
        name="deepseek3",
        source="ftk_template_deepseek:deepseek3.jinja",
        model_types=("deepseek_v3",),
        summary="DeepSeek V3",
    )
    yield ftk.ChatTemplate(
        "deepseek",
        prefix="{bos}",
        system="{content}\n\n",
        user="User: {content}\n\n",
        tool="User: {content}\n\n",
        generation="Assistant:",
        assistant=" {content}{eos}",
        stop=("<｜end▁of▁sentence｜>",),
        model_types=("deepseek", "deepseek_v2"),
        options=TemplateOptions,
        summary="DeepSeek LLM Chat, MoE Chat and V2",
    )
    yield ftk.ChatTemplate(
        "deepseekcoder",
        prefix="{bos}",
        user="### Instruction:\n{content}\n",
        tool="### Instruction:\n{content}\n",
        generation="### Response:\n",
        assistant="{content}\n<|EOT|>",
        assistant_end="\n",
        default_system=CODER_SYSTEM,
        stop=("<|EOT|>",),
        options=TemplateOptions,
        summary="DeepSeek Coder Instruct",
    )


@ftk.hookimpl
def ftk_tool_formats():
    yield DEEPSEEK
