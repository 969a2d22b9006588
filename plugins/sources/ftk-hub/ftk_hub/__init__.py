"""Data sets of the Hugging Face hub."""

import ftk


@ftk.hookimpl
def ftk_dataset_sources():
    yield ftk.DatasetSource(
        "hub",
        target="ftk_hub.rows:open_rows",
        field="hf_hub_url",
        schemes=("hf",),
        entry_fields=("subset", "split", "folder"),
        reads=("hf_hub_token", "cache_dir", "streaming"),
        order=10,
        all_names="ONLINE",
        info="ftk_hub.info:fetched",
        info_prefix="REMOTE:",
        summary="A data set of the Hugging Face hub, downloaded or streamed",
    )
    yield ftk.DatasetSource(
        "script",
        target="ftk_hub.rows:refuse_script",
        field="script_url",
        order=40,
        summary="Loading scripts, which are code: refused, with what to do instead",
    )
