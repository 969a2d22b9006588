"""dots.ocr of rednote-hilab, which reads documents."""

from collections.abc import Iterator

import ftk
from ftk_data import TemplateOptions


@ftk.hookimpl
def ftk_chat_templates() -> Iterator[ftk.ChatTemplate]:
    yield ftk.ChatTemplate(
        "dots_ocr",
        system="<|system|>{content}<|endofsystem|>\n",
        user="<|user|>{content}<|endofuser|>",
        tool="<|user|>{content}<|endofuser|>",
        generation="<|assistant|>",
        assistant="{content}<|endofassistant|>",
        stop=("<|endofassistant|>",),
        media={"image": "<|img|><|imgpad|><|endofimg|>", "video": "<|img|><|vidpad|><|endofimg|>"},
        tool_format="ftk_data.react:DEFAULT",
        model_types=("dots_ocr",),
        options=TemplateOptions,
        summary="dots.ocr",
    )
