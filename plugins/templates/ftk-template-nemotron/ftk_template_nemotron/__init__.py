"""The Nemotron 3 models of NVIDIA."""

import ftk
from ftk_data import TemplateOptions

from ftk_template_nemotron.tools import NEMOTRON3


@ftk.hookimpl
def ftk_chat_templates():
    yield ftk.ChatTemplate(
        "nemotron3",
        source="ftk_template_nemotron:nemotron3.jinja",
        thinking=("<think>\n", "\n</think>\n"),
        stop=("<|im_end|>",),
        model_types=("nemotron_h",),
        options=TemplateOptions,
        summary="Nemotron 3: reasoning, calls in XML",
    )


@ftk.hookimpl
def ftk_tool_formats():
    yield NEMOTRON3
