"""The Qwen families: ChatML with a default system text, with reasoning, or without both."""

from dataclasses import replace

import ftk
from ftk_data import TemplateOptions

QWEN3_NOTHINK = ftk.ChatTemplate(
    "qwen3_nothink",
    system="<|im_start|>system\n{content}<|im_end|>\n",
    user="<|im_start|>user\n{content}<|im_end|>\n",
    tool="\n<tool_response>\n{content}\n</tool_response>",
    tool_group=("<|im_start|>user", "<|im_end|>\n"),
    generation="<|im_start|>assistant\n",
    assistant="{content}<|im_end|>",
    assistant_end="\n",
    stop=("<|im_end|>",),
    tool_format="ftk_data.tools:HERMES",
    options=TemplateOptions,
    summary="Qwen3 Instruct 2507 and later: no reasoning",
)


@ftk.hookimpl
def ftk_chat_templates():
    yield QWEN3_NOTHINK
    yield replace(
        QWEN3_NOTHINK,
        name="qwen3",
        thinking=("<think>\n", "\n</think>\n\n"),
        model_types=("qwen3", "qwen3_moe"),
        summary="Qwen3: reasoning before the answer",
    )
    yield replace(
        QWEN3_NOTHINK,
        name="qwen",
        default_system="You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
        model_types=("qwen2", "qwen2_moe"),
        summary="Qwen2.5",
    )
