"""The models of Moonshot AI: Moonlight, Kimi-VL and Kimi K2."""

from dataclasses import replace

import ftk
from ftk_data import TemplateOptions

from ftk_template_kimi.tools import KIMI_K2

IMAGE = "<|media_start|>image<|media_content|><|media_pad|><|media_end|>"
MOONLIGHT = ftk.ChatTemplate(
    "moonlight",
    system="<|im_system|>system<|im_middle|>{content}<|im_end|>",
    user="<|im_user|>user<|im_middle|>{content}<|im_end|>",
    tool="<|im_user|>user<|im_middle|>{content}<|im_end|>",
    generation="<|im_assistant|>assistant<|im_middle|>",
    assistant="{content}<|im_end|>",
    stop=("<|im_end|>",),
    default_system="You are a helpful assistant provided by Moonshot-AI.",
    tool_format="ftk_data.react:DEFAULT",
    options=TemplateOptions,
    summary="Moonlight Instruct",
)


@ftk.hookimpl
def ftk_chat_templates():
    yield MOONLIGHT
    yield replace(
        MOONLIGHT,
        name="kimi_vl",
        default_system="You are a helpful assistant",
        thinking=("◁think▷", "◁/think▷"),
        media={"image": IMAGE},
        model_types=("kimi_vl",),
        summary="Kimi-VL: images, reasoning between marks of its own",
    )
    yield ftk.ChatTemplate(
        "kimi_k2",
        source="ftk_template_kimi:kimi_k2.jinja",
        thinking=("<think>", "</think>"),
        default_system="You are Kimi, an AI assistant created by Moonshot AI.",
        stop=("<|im_end|>",),
        media={"image": IMAGE + "\n"},
        model_types=("kimi_k2",),
        options=TemplateOptions,
        summary="Kimi K2 Thinking",
    )


@ftk.hookimpl
def ftk_tool_formats():
    yield KIMI_K2
