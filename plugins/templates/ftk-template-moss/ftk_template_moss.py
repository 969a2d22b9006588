"""MOSS-VL: ChatML with media."""

from collections.abc import Iterator

import ftk
from ftk_data import TemplateOptions


@ftk.hookimpl
def ftk_chat_templates() -> Iterator[ftk.ChatTemplate]:
    yield ftk.ChatTemplate(
        "moss_vl",
        system="<|im_start|>system\n{content}<|im_end|>\n",
        user="<|im_start|>user\n{content}<|im_end|>\n",
        tool="\n<tool_response>\n{content}\n</tool_response>",
        tool_group=("<|im_start|>user", "<|im_end|>\n"),
        generation="<|im_start|>assistant\n",
        assistant="{content}<|im_end|>",
        assistant_end="\n",
        stop=("<|im_end|>",),
        tool_format="ftk_data.tools:HERMES",
        media={"image": "<|image_pad|>", "video": "<|video_pad|>"},
        model_types=("moss_vl",),
        options=TemplateOptions,
        summary="MOSS-VL",
    )
