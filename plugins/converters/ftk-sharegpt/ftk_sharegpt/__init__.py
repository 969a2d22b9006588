"""Conversations as lists of turns, each with ``from`` and ``value``."""

import ftk


@ftk.hookimpl
def ftk_dataset_converters():
    yield ftk.DatasetConverter(
        "sharegpt",
        target="ftk_sharegpt.converting:convert",
        entry_fields=("ranking",),
        columns=(
            "messages", "system", "tools", "images", "videos", "audios", "chosen", "rejected", "kto_tag",
        ),
        tags=(
            "role_tag", "content_tag", "user_tag", "assistant_tag", "observation_tag", "function_tag", "system_tag",
        ),
        summary="Lists of turns with from and value: human, gpt, function_call, observation",
    )  # fmt: skip
