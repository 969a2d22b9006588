"""Tencent's Youtu families: Youtu-LLM, which reasons, and Youtu-VL, which sees."""

from collections.abc import Iterator

import ftk
from ftk_data import TemplateOptions


@ftk.hookimpl
def ftk_chat_templates() -> Iterator[ftk.ChatTemplate]:
    yield ftk.ChatTemplate(
        "youtu",
        prefix="{bos}",
        user="<|User|>{content}",
        tool="<tool_response>\n{content}\n</tool_response>",
        generation="<|Assistant|>",
        assistant="{content}<|end_of_text|>",
        stop=("<|end_of_text|>",),
        thinking=("<think>\n", "\n</think>\n\n"),
        tool_format="ftk_data.react:DEFAULT",
        model_types=("youtu",),
        options=TemplateOptions,
        summary="Youtu-LLM: reasoning before the answer",
    )
    yield ftk.ChatTemplate(
        "youtu_vl",
        system="<|begin_of_text|>system\n{content}<|end_of_text|>\n",
        user="<|begin_of_text|>user\n{content}<|end_of_text|>\n",
        tool="<|begin_of_text|>user\n{content}<|end_of_text|>\n",
        generation="<|begin_of_text|>assistant\n",
        assistant="{content}<|end_of_text|>",
        assistant_end="\n",
        default_system="You are a helpful assistant.",
        stop=("<|end_of_text|>",),
        tool_format="ftk_data.react:DEFAULT",
        media={
            "image": "<|vision_start|><|image_pad|><|vision_end|>",
            "video": "<|vision_start|><|video_pad|><|vision_end|>",
        },
        model_types=("youtu_vl",),
        options=TemplateOptions,
        summary="Youtu-VL",
    )
