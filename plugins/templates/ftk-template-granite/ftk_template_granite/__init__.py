"""The Granite families of IBM: 3.x, 3.x Vision and 4.0."""

import ftk
from ftk_data import TemplateOptions

from ftk_template_granite.tools import GRANITE3, GRANITE4

VISION_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)


@ftk.hookimpl
def ftk_chat_templates():
    yield ftk.ChatTemplate(
        "granite3",
        source="ftk_template_granite:granite3.jinja",
        stop=("<|end_of_text|>",),
        model_types=("granite", "granitemoe"),
        options=TemplateOptions,
        summary="Granite 3.0",
    )
    yield ftk.ChatTemplate(
        "granite3_vision",
        system="<|system|>\n{content}\n",
        user="<|user|>\n{content}\n",
        tool="<|user|>\n{content}\n",
        generation="<|assistant|>\n",
        assistant="{content}{eos}",
        default_system=VISION_SYSTEM,
        stop=("<|end_of_text|>",),
        tool_format="ftk_data.react:DEFAULT",
        media={"image": "<image>"},
        options=TemplateOptions,
        summary="Granite 3.x Vision",
    )
    yield ftk.ChatTemplate(
        "granite4",
        system="<|start_of_role|>system<|end_of_role|>{content}<|end_of_text|>\n",
        user="<|start_of_role|>user<|end_of_role|>{content}<|end_of_text|>\n",
        tool="\n<tool_response>\n{content}\n</tool_response>",
        tool_group=("<|start_of_role|>user<|end_of_role|>", "<|end_of_text|>\n"),
        generation="<|start_of_role|>assistant<|end_of_role|>",
        assistant="{content}<|end_of_text|>",
        assistant_end="\n",
        default_system="You are Granite, developed by IBM. You are a helpful AI assistant.",
        stop=("<|end_of_text|>",),
        tool_format="ftk_template_granite.tools:GRANITE4",
        model_types=("granitemoehybrid",),
        options=TemplateOptions,
        summary="Granite 4.0",
    )


@ftk.hookimpl
def ftk_tool_formats():
    yield GRANITE3
    yield GRANITE4
