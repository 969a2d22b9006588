"""The Baichuan families: one token before each turn, none after an answer."""

from dataclasses import replace

import ftk
from ftk_data import TemplateOptions

BAICHUAN2 = ftk.ChatTemplate(
    "baichuan2",
    source="ftk_template_baichuan:baichuan2.jinja",
    stop=("</s>",),
    options=TemplateOptions,
    summary="Baichuan2 Chat",
)


@ftk.hookimpl
def ftk_chat_templates():
    yield replace(BAICHUAN2, model_types=("baichuan",))
    yield replace(
        BAICHUAN2, name="baichuan", source="ftk_template_baichuan:baichuan.jinja", summary="Baichuan-13B-Chat"
    )
