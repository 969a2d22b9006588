"""The EXAONE families: 3.x, and 4.0 with reasoning and tools."""

import ftk
from ftk_data import TemplateOptions

from ftk_template_exaone.tools import EXAONE4


@ftk.hookimpl
def ftk_chat_templates():
    yield ftk.ChatTemplate(
        "exaone",
        system="[|system|]{content}[|endofturn|]\n",
        user="[|user|]{content}\n",
        tool="[|user|]{content}\n",
        generation="[|assistant|]",
        assistant="{content}{eos}",
        assistant_end="\n",
        stop=("[|endofturn|]",),
        model_types=("exaone",),
        options=TemplateOptions,
        summary="EXAONE 3.0 and 3.5",
    )
    yield ftk.ChatTemplate(
        "exaone4",
        source="ftk_template_exaone:exaone4.jinja",
        stop=("[|endofturn|]",),
        thinking=("<think>\n", "\n</think>\n\n"),
        model_types=("exaone4",),
        options=TemplateOptions,
        summary="EXAONE 4.0: answers without a thought unless enable_thinking is on",
    )


@ftk.hookimpl
def ftk_tool_formats():
    yield EXAONE4
