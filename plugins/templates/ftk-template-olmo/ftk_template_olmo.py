"""The OLMo models of Ai2."""

import ftk
from ftk_data import TemplateOptions


@ftk.hookimpl
def ftk_chat_templates():
    yield ftk.ChatTemplate(
        "olmo",
        prefix="{eos}",
        user="<|user|>\n{content}",
        tool="<|user|>\n{content}",
        generation="<|assistant|>\n",
        tool_format="ftk_data.react:DEFAULT",
        model_types=("olmo",),
        options=TemplateOptions,
        summary="OLMo Instruct",
    )
