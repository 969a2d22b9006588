"""Rows with an instruction, an input and an output."""

import ftk


@ftk.hookimpl
def ftk_dataset_converters():
    yield ftk.DatasetConverter(
        "alpaca",
        target="ftk_alpaca.converting:convert",
        default=True,
        entry_fields=("ranking",),
        columns=(
            "prompt", "query", "response", "history", "system", "tools", "images", "videos", "audios", "chosen",
            "rejected", "kto_tag",
        ),
        summary="A column each for the instruction, its input and the answer",
    )  # fmt: skip
