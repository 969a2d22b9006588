"""Data sets in object stores and on web servers."""

import ftk


@ftk.hookimpl
def ftk_dataset_sources():
    yield ftk.DatasetSource(
        "cloud",
        target="ftk_cloud.rows:open_rows",
        field="cloud_file_name",
        schemes=("s3", "gs", "gcs", "az", "abfs", "oss", "hdfs", "http", "https", "memory"),
        entry_fields=("split",),
        order=50,
        summary="Files that fsspec opens: s3://, gs://, https:// and others",
    )
