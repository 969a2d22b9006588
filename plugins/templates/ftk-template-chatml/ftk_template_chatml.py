"""ChatML, as base models are trained to chat with."""

import ftk
from ftk_data import TemplateOptions


@ftk.hookimpl
def ftk_chat_templates():
    yield ftk.ChatTemplate(
        "chatml",
        system="<|im_start|>system\n{content}<|im_end|>\n",
        user="<|im_start|>user\n{content}<|im_end|>\n",
        tool="<|im_start|>tool\n{content}<|im_end|>\n",
        generation="<|im_start|>assistant\n",
        assistant="{content}<|im_end|>",
        assistant_end="\n",
        stop=("<|im_end|>",),
        tool_format="ftk_data.tools:HERMES",
        options=TemplateOptions,
        summary="ChatML; tools the Hermes way",
    )
