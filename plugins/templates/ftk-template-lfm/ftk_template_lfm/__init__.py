"""The models of Liquid AI: ChatML after the tokenizer's first token, and calls in the form of Python."""

from dataclasses import replace

import ftk
from ftk_data import TemplateOptions

from ftk_template_lfm.tools import LFM2

LFM = ftk.ChatTemplate(
    "lfm2",
    source="ftk_template_lfm:lfm2.jinja",
    stop=("<|im_end|>",),
    model_types=("lfm2", "lfm2_moe"),
    options=TemplateOptions,
    summary="LFM2, dense and LFM2-8B-A1B",
)


@ftk.hookimpl
def ftk_chat_templates():
    yield LFM
    yield replace(
        LFM,
        name="lfm2_vl",
        default_system="You are a helpful multimodal assistant by Liquid AI.",
        media={"image": "<image>"},
        model_types=("lfm2_vl",),
        summary="LFM2-VL: images",
    )


@ftk.hookimpl
def ftk_tool_formats():
    yield LFM2
