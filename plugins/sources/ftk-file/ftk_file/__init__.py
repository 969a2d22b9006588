"""Data sets in local files."""

import ftk


@ftk.hookimpl
def ftk_dataset_sources():
    yield ftk.DatasetSource(
        "file",
        target="ftk_file.rows:open_rows",
        field="file_name",
        schemes=("",),
        entry_fields=("split",),
        order=60,
        summary="A file or a folder of files: json, jsonl, csv, parquet, arrow, txt",
    )
