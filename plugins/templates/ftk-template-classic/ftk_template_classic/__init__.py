"""Plain-text and older formats: base models, Alpaca, Vicuna, Zephyr, and families with one model each."""

import ftk

from ftk_template_classic.chatml import CHATML_FAMILIES
from ftk_template_classic.plain import PLAIN_FORMATS


@ftk.hookimpl
def ftk_chat_templates():
    yield from PLAIN_FORMATS
    yield from CHATML_FAMILIES
