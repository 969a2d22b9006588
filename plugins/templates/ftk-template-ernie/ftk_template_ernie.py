"""The ERNIE models of Baidu."""

from dataclasses import replace

import ftk
from ftk_data import TemplateOptions

ERNIE_NOTHINK = ftk.ChatTemplate(
    "ernie_nothink",
    prefix="<|begin_of_sentence|>",
    system="{content}\n",
    user="User: {content}\n",
    tool="User: {content}\n",
    generation="Assistant: ",
    assistant="{content}<|end_of_sentence|>",
    stop=("<|end_of_sentence|>",),
    tool_format="ftk_data.react:DEFAULT",
    model_types=("ernie4_5", "ernie4_5_moe"),
    options=TemplateOptions,
    summary="ERNIE 4.5: no reasoning",
)


@ftk.hookimpl
def ftk_chat_templates():
    yield ERNIE_NOTHINK
    yield replace(
        ERNIE_NOTHINK,
        name="ernie_vl",
        prefix="",
        user="User: {content}",
        tool="User: {content}",
        generation="\nAssistant: ",
        thinking=("<think>\n", "\n</think>\n\n"),
        media={"image": "<|IMAGE_PLACEHOLDER|>", "video": "<|VIDEO_PLACEHOLDER|>"},
        model_types=("ernie4_5_vl_moe",),
        summary="ERNIE 4.5 VL: images, videos, reasoning",
    )
    yield replace(
        ERNIE_NOTHINK,
        name="ernie",
        prefix="",
        system="<|im_start|>system\n{content}<|im_end|>\n\n",
        user="<|im_start|>user\n{content}<|im_end|>\n\n",
        tool="<|im_start|>tool\n{content}<|im_end|>\n\n",
        generation="<|im_start|>assistant\n",
        assistant="{content}<|im_end|>",
        assistant_end="\n\n",
        default_system="<global_setting>\nthink_mode=True\n</global_setting>",
        stop=("<|im_end|>",),
        model_types=(),
        summary="ERNIE 4.5 Thinking: ChatML with an empty line between turns",
    )
