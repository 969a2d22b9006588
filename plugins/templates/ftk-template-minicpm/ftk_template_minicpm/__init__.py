"""MiniCPM: ChatML for 4, V and o; MiniCPM5 has reasoning and a tool dialect of its own."""

from dataclasses import replace

import ftk
from ftk_data import TemplateOptions

from ftk_template_minicpm.tools import MINICPM5

CPM4 = ftk.ChatTemplate(
    "cpm4",
    prefix="{bos}",
    system="<|im_start|>system\n{content}<|im_end|>\n",
    user="<|im_start|>user\n{content}<|im_end|>\n",
    tool="<|im_start|>tool\n{content}<|im_end|>\n",
    generation="<|im_start|>assistant\n",
    assistant="{content}<|im_end|>",
    assistant_end="\n",
    stop=("<|im_end|>",),
    tool_format="ftk_data.react:DEFAULT",
    options=TemplateOptions,
    summary="MiniCPM 3 and 4",
)
MINICPM_V = replace(
    CPM4,
    name="minicpm_v",
    prefix="",
    tool="<|im_start|>user\n{content}<|im_end|>\n",
    default_system="You are a helpful assistant.",
    media={"image": "<image>", "video": "<video>"},
    model_types=("minicpmv",),
    summary="MiniCPM-V 2.6, 4 and 4.5: images and videos",
)


@ftk.hookimpl
def ftk_chat_templates():
    yield replace(CPM4, model_types=("minicpm", "minicpm3"))
    yield MINICPM_V
    yield replace(MINICPM_V, name="minicpm_v_4_6", model_types=("minicpmv4_6",), summary="MiniCPM-V 4.6")
    yield replace(
        MINICPM_V,
        name="minicpm_o",
        default_system="You are a helpful assistant. You can accept audio and text input and output voice and text.",
        media={"image": "<image>", "video": "<video>", "audio": "<audio>"},
        model_types=("minicpmo",),
        summary="MiniCPM-o: images, videos and speech",
    )
    yield ftk.ChatTemplate(
        "minicpm5",
        source="ftk_template_minicpm:minicpm5.jinja",
        thinking=("<think>\n", "\n</think>\n\n"),
        stop=("<|im_end|>",),
        options=TemplateOptions,
        summary="MiniCPM5: reasoning, calls in XML",
    )


@ftk.hookimpl
def ftk_tool_formats():
    yield MINICPM5
