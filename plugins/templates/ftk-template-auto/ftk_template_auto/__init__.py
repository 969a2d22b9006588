"""The model's own chat template, with exact masks for every answer."""

import ftk
from ftk_data import TemplateOptions


@ftk.hookimpl
def ftk_chat_templates():
    yield ftk.ChatTemplate(
        "auto",
        target="ftk_template_auto.own:render",
        default=True,
        options=TemplateOptions,
        summary="The chat template that the model brings",
    )
