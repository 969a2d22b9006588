"""Command R of Cohere: turns between tokens, every text without the space at its ends."""

import ftk
from ftk_data import TemplateOptions


@ftk.hookimpl
def ftk_chat_templates():
    yield ftk.ChatTemplate(
        "cohere",
        prefix="{bos}",
        system="<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>{content}<|END_OF_TURN_TOKEN|>",
        user="<|START_OF_TURN_TOKEN|><|USER_TOKEN|>{content}<|END_OF_TURN_TOKEN|>",
        tool="<|START_OF_TURN_TOKEN|><|USER_TOKEN|>{content}<|END_OF_TURN_TOKEN|>",
        trim=True,
        generation="<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
        assistant="{content}<|END_OF_TURN_TOKEN|>",
        stop=("<|END_OF_TURN_TOKEN|>",),
        model_types=("cohere",),
        options=TemplateOptions,
        summary="Command R and R+, Aya 23",
    )
