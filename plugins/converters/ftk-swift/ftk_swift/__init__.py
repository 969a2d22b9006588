"""The data layouts of ms-swift."""

import ftk


@ftk.hookimpl
def ftk_dataset_converters():
    yield ftk.DatasetConverter(
        "swift",
        target="ftk_swift.converting:convert",
        columns=(
            "messages", "system", "query", "response", "history", "rejected_response", "rejected_messages", "label",
            "tools", "images", "videos", "audios",
        ),
        summary="Rows of ms-swift: query and response with history, or messages",
    )  # fmt: skip
