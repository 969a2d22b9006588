"""The MiMo models of Xiaomi: ChatML with a system text, tools the Hermes way."""

from dataclasses import replace

import ftk
from ftk_data import TemplateOptions

MIMO_VL = ftk.ChatTemplate(
    "mimo_vl",
    system="<|im_start|>system\n{content}<|im_end|>\n",
    user="<|im_start|>user\n{content}<|im_end|>\n",
    tool="\n<tool_response>\n{content}\n</tool_response>",
    tool_group=("<|im_start|>user", "<|im_end|>\n"),
    generation="<|im_start|>assistant\n",
    assistant="{content}<|im_end|>",
    assistant_end="\n",
    stop=("<|im_end|>",),
    default_system="You are MiMo, an AI assistant developed by Xiaomi.",
    tool_format="ftk_data.tools:HERMES_2_5",
    media={
        "image": "<|vision_start|><|image_pad|><|vision_end|>",
        "video": "<|vision_start|><|video_pad|><|vision_end|>",
    },
    options=TemplateOptions,
    summary="MiMo-VL: images and videos; reasoning is part of the answer",
)


@ftk.hookimpl
def ftk_chat_templates():
    yield MIMO_VL
    yield replace(
        MIMO_VL,
        name="mimo",
        default_system="You are a helpful assistant.",
        thinking=("<think>\n", "\n</think>\n\n"),
        media={},
        model_types=("mimo",),
        summary="MiMo 7B: reasoning before the answer",
    )
    yield replace(
        MIMO_VL,
        name="mimo_v2",
        default_system="You are MiMo, a helpful AI assistant engineered by Xiaomi.",
        thinking=("<think>", "</think>"),
        media={},
        model_types=("mimo_v2_flash",),
        summary="MiMo-V2: reasoning before the answer",
    )
