"""The Hunyuan families of Tencent: the first ones, the dense ones, and Hy3 with reasoning and tools."""

from dataclasses import replace

import ftk
from ftk_data import TemplateOptions

from ftk_template_hunyuan.tools import HY3

HUNYUAN = ftk.ChatTemplate(
    "hunyuan",
    prefix="<|startoftext|>",
    system="{content}<|extra_4|>",
    user="{content}<|extra_0|>",
    tool="{content}<|extra_0|>",
    assistant="{content}<|eos|>",
    stop=("<|eos|>",),
    tool_format="ftk_data.react:DEFAULT",
    options=TemplateOptions,
    summary="Hunyuan Large and A13B",
)


@ftk.hookimpl
def ftk_chat_templates():
    yield replace(HUNYUAN, model_types=("hunyuan", "hunyuan_v1_moe"))
    yield replace(HUNYUAN, name="hy_dense_7b", prefix="{bos}", summary="Hunyuan 7B")
    yield replace(
        HUNYUAN,
        name="hunyuan_small",
        prefix="<｜hy_begin▁of▁sentence｜>",
        system="{content}<｜hy_place▁holder▁no▁3｜>",
        user="<｜hy_User｜>{content}<｜hy_place▁holder▁no▁8｜>",
        tool="<｜hy_User｜>{content}<｜hy_place▁holder▁no▁8｜>",
        assistant="{content}<｜hy_place▁holder▁no▁2｜>",
        stop=("<｜hy_place▁holder▁no▁2｜>",),
        summary="The small Hunyuan models",
    )
    yield replace(
        HUNYUAN,
        name="hy_dense_1_8b",
        prefix="{bos}",
        system="{content}<｜hy_place▁holder▁no▁3｜>",
        user="<｜hy_User｜>{content}",
        tool="<｜hy_User｜>{content}",
        generation="<｜hy_Assistant｜>",
        assistant="{content}<｜hy_place▁holder▁no▁2｜>",
        stop=("<｜hy_place▁holder▁no▁2｜>",),
        model_types=("hunyuan_v1_dense",),
        summary="Hunyuan 0.5B, 1.8B and 4B",
    )
    yield ftk.ChatTemplate(
        "hy3",
        source="ftk_template_hunyuan:hy3.jinja",
        stop=("<｜hy_eos:opensource｜>",),
        thinking=("<think:opensource>", "</think:opensource>"),
        model_types=("hy_v3",),
        options=TemplateOptions,
        summary="Hy3: answers without a thought unless enable_thinking is on",
    )


@ftk.hookimpl
def ftk_tool_formats():
    yield HY3
