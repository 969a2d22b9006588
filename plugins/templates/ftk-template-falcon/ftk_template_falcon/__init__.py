"""The Falcon families of TII: Falcon Instruct, and Falcon-H1."""

import ftk
from ftk_data import TemplateOptions


@ftk.hookimpl
def ftk_chat_templates():
    yield ftk.ChatTemplate(
        "falcon",
        source="ftk_template_falcon:falcon.jinja",
        stop=("<|endoftext|>", "\nUser:"),
        model_types=("falcon",),
        options=TemplateOptions,
        summary="Falcon Instruct",
    )
    yield ftk.ChatTemplate(
        "falcon_h1",
        prefix="{bos}",
        system="<|im_start|>system\n{content}<|im_end|>\n",
        user="<|im_start|>user\n{content}<|im_end|>\n",
        tool="<|im_start|>tool\n{content}<|im_end|>\n",
        generation="<|im_start|>assistant\n",
        assistant="{content}<|im_end|>",
        assistant_end="\n",
        stop=("<|im_end|>", "<|end_of_text|>"),
        model_types=("falcon_h1",),
        options=TemplateOptions,
        summary="Falcon-H1 Instruct",
    )
