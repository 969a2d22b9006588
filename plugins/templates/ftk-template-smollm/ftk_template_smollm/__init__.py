"""The SmolLM models of Hugging Face."""

from dataclasses import replace

import ftk
from ftk_data import TemplateOptions

from ftk_template_smollm.tools import SMOLLM3

SMOLLM = ftk.ChatTemplate(
    "smollm",
    system="<|im_start|>system\n{content}<|im_end|>\n",
    user="<|im_start|>user\n{content}<|im_end|>\n",
    tool="<|im_start|>user\n{content}<|im_end|>\n",
    generation="<|im_start|>assistant\n",
    assistant="{content}<|im_end|>",
    assistant_end="\n",
    stop=("<|im_end|>",),
    tool_format="ftk_data.react:DEFAULT",
    options=TemplateOptions,
    summary="SmolLM Instruct",
)


@ftk.hookimpl
def ftk_chat_templates():
    yield SMOLLM
    yield replace(
        SMOLLM,
        name="smollm2",
        default_system="You are a helpful AI assistant named SmolLM, trained by Hugging Face.",
        summary="SmolLM2 Instruct",
    )
    yield ftk.ChatTemplate(
        "smollm3",
        source="ftk_template_smollm:smollm3.jinja",
        thinking=("<think>\n", "\n</think>\n"),
        stop=("<|im_end|>",),
        model_types=("smollm3",),
        options=TemplateOptions,
        summary="SmolLM3: reasoning, switched by the system text or by enable_thinking",
    )


@ftk.hookimpl
def ftk_tool_formats():
    yield SMOLLM3
