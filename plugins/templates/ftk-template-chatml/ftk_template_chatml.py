"""ChatML, as base models are trained to chat with."""

from collections.abc import Iterator
from dataclasses import replace

import ftk
from ftk_data import TemplateOptions

CHATML = ftk.ChatTemplate(
    "chatml",
    system="<|im_start|>system\n{content}<|im_end|>\n",
    user="<|im_start|>user\n{content}<|im_end|>\n",
    tool="<|im_start|>tool\n{content}<|im_end|>\n",
    generation="<|im_start|>assistant\n",
    assistant="{content}<|im_end|>",
    assistant_end="\n",
    stop=("<|im_end|>", "<|im_start|>"),
    tool_format="ftk_data.react:DEFAULT",
    options=TemplateOptions,
    summary="ChatML",
)


@ftk.hookimpl
def ftk_chat_templates() -> Iterator[ftk.ChatTemplate]:
    yield CHATML
    yield replace(
        CHATML,
        name="chatml_de",
        default_system="Du bist ein freundlicher und hilfsbereiter KI-Assistent.",
        summary="ChatML with a German system text",
    )
