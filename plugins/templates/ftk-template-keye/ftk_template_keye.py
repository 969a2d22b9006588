"""Keye-VL: ChatML with reasoning and media."""

from collections.abc import Iterator

import ftk
from ftk_data import TemplateOptions


@ftk.hookimpl
def ftk_chat_templates() -> Iterator[ftk.ChatTemplate]:
    yield ftk.ChatTemplate(
        "keye_vl",
        system="<|im_start|>system\n{content}<|im_end|>\n",
        user="<|im_start|>user\n{content}<|im_end|>\n",
        tool="\n<tool_response>\n{content}\n</tool_response>",
        tool_group=("<|im_start|>user", "<|im_end|>\n"),
        generation="<|im_start|>assistant\n",
        assistant="{content}<|im_end|>",
        assistant_end="\n",
        stop=("<|im_end|>",),
        thinking=("<think>\n", "\n</think>\n\n"),
        tool_format="ftk_data.tools:HERMES",
        media={
            "image": "<|vision_start|><|image_pad|><|vision_end|>",
            "video": "<|vision_start|><|video_pad|><|vision_end|>",
        },
        model_types=("keye", "keye_vl", "keye_vl_1_5", "Keye", "KeyeVL1_5"),
        options=TemplateOptions,
        summary="Keye-VL: reasoning before the answer",
    )
