"""The chat template of gpt-oss: the harmony format with its channels."""

import ftk
from ftk_data import TemplateOptions

from ftk_template_gpt_oss.tools import GPT_OSS


@ftk.hookimpl
def ftk_chat_templates():
    yield ftk.ChatTemplate(
        "gpt_oss",
        source="ftk_template_gpt_oss:gpt_oss.jinja",
        stop=("<|return|>", "<|call|>"),
        thinking=("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
        model_types=("gpt_oss",),
        options=TemplateOptions,
        summary="gpt-oss: analysis, commentary and final channels",
    )


@ftk.hookimpl
def ftk_tool_formats():
    yield GPT_OSS
