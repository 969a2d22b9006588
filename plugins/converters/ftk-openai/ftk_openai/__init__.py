"""Conversations as the OpenAI API has them: messages with role and content."""

import ftk


@ftk.hookimpl
def ftk_dataset_converters():
    yield ftk.DatasetConverter(
        "openai",
        target="ftk_openai.converting:convert",
        entry_fields=("ranking",),
        columns=(
            "messages", "system", "tools", "images", "videos", "audios", "chosen", "rejected", "kto_tag",
        ),
        tags=(
            "role_tag", "content_tag", "user_tag", "assistant_tag", "observation_tag", "function_tag", "system_tag",
        ),
        summary="Messages of the OpenAI API, with tool calls, parts, reasoning and weights",
    )  # fmt: skip
