"""The Qwen families: ChatML, with or without a default system text, reasoning, and media."""

from collections.abc import Iterator
from dataclasses import replace

import ftk
from ftk_data import TemplateOptions, ToolFormat

from ftk_template_qwen.tools import QWEN
from ftk_template_qwen.tools import QWEN3_5 as QWEN3_5_TOOLS

VISION = {
    "image": "<|vision_start|><|image_pad|><|vision_end|>",
    "video": "<|vision_start|><|video_pad|><|vision_end|>",
}
AUDIO = {"audio": "<|audio_bos|><|AUDIO|><|audio_eos|>"}
OMNI = {**VISION, "audio": "<|audio_start|><|audio_pad|><|audio_end|>"}
ASSISTANT = "You are a helpful assistant."

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
    tool_format="ftk_template_qwen.tools:QWEN",
    options=TemplateOptions,
    summary="Qwen3 Instruct 2507 and later: no reasoning",
)
QWEN3 = replace(
    QWEN3_NOTHINK,
    name="qwen3",
    thinking=("<think>\n", "\n</think>\n\n"),
    model_types=("qwen3", "qwen3_moe"),
    summary="Qwen3: reasoning before the answer",
)
QWEN3_5 = replace(
    QWEN3,
    name="qwen3_5",
    source="ftk_template_qwen:qwen3_5.jinja",
    tool_format="ftk_template_qwen.tools:QWEN3_5",
    media=VISION,
    model_types=("qwen3_5", "qwen3_5_moe"),
    summary="Qwen3.5: the prompt opens the thought; calls as tags",
)


@ftk.hookimpl
def ftk_chat_templates() -> Iterator[ftk.ChatTemplate]:
    yield QWEN3_NOTHINK
    yield QWEN3
    yield replace(
        QWEN3_NOTHINK,
        name="qwen",
        default_system="You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
        tool_format="ftk_data.tools:HERMES_2_5",
        model_types=("qwen2", "qwen2_moe"),
        summary="Qwen2.5",
    )
    yield replace(
        QWEN3_NOTHINK,
        name="qwen2_vl",
        default_system=ASSISTANT,
        media=VISION,
        model_types=("qwen2_vl", "qwen2_5_vl"),
        summary="Qwen2-VL and Qwen2.5-VL",
    )
    yield replace(
        QWEN3_NOTHINK,
        name="qwen2_audio",
        source="ftk_template_qwen:qwen2_audio.jinja",
        tool_format=None,
        default_system=ASSISTANT,
        media=AUDIO,
        model_types=("qwen2_audio",),
        summary="Qwen2-Audio: the sounds are numbered; no tools",
    )
    yield replace(
        QWEN3_NOTHINK,
        name="qwen2_omni",
        default_system=ASSISTANT,
        media={
            "image": "<|vision_bos|><|IMAGE|><|vision_eos|>",
            "video": "<|vision_bos|><|VIDEO|><|vision_eos|>",
            **AUDIO,
        },
        model_types=("qwen2_5_omni", "qwen2_5_omni_thinker"),
        summary="Qwen2.5-Omni",
    )
    yield replace(QWEN3, name="qwen3_vl", media=VISION, model_types=(), summary="Qwen3-VL Thinking")
    yield replace(
        QWEN3_NOTHINK,
        name="qwen3_vl_nothink",
        media=VISION,
        model_types=("qwen3_vl", "qwen3_vl_moe"),
        summary="Qwen3-VL Instruct",
    )
    yield replace(QWEN3, name="qwen3_omni", media=OMNI, model_types=(), summary="Qwen3-Omni Thinking")
    yield replace(
        QWEN3_NOTHINK,
        name="qwen3_omni_nothink",
        media=OMNI,
        model_types=("qwen3_omni_moe", "qwen3_omni_moe_thinker"),
        summary="Qwen3-Omni Instruct",
    )
    yield QWEN3_5
    yield replace(
        QWEN3_NOTHINK,
        name="qwen3_5_nothink",
        tool_format="ftk_template_qwen.tools:QWEN3_5",
        media=VISION,
        summary="Qwen3.5 without any thought, not even an empty one",
    )
    yield replace(QWEN3_5, name="qwen3_6", model_types=(), summary="Qwen3.6: as Qwen3.5")


@ftk.hookimpl
def ftk_tool_formats() -> Iterator[ToolFormat]:
    yield QWEN
    yield QWEN3_5_TOOLS
