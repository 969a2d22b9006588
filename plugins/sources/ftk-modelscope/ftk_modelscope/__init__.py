"""Data sets of the ModelScope hub."""

import os

import ftk


@ftk.options
class ModelScopeOptions:
    """Access to the ModelScope hub."""

    ms_hub_token: str | None = ftk.option(
        None,
        help="Access token of the ModelScope hub for private data sets; unset is what the environment has.",
        secret=True,
    )


def order():
    """Before the Hugging Face hub when ``USE_MODELSCOPE_HUB`` asks for it, else right after."""
    return 1 if os.environ.get("USE_MODELSCOPE_HUB", "").lower() in ("1", "true", "y") else 20


@ftk.hookimpl
def ftk_dataset_sources():
    yield ftk.DatasetSource(
        "modelscope",
        target="ftk_modelscope.rows:open_rows",
        field="ms_hub_url",
        schemes=("ms",),
        entry_fields=("subset", "split", "folder"),
        options=ModelScopeOptions,
        reads=("cache_dir",),
        requires=("modelscope",),
        extra="backend",
        order=order(),
        all_names="ONLINE",
        summary="A data set of the ModelScope hub, downloaded",
    )
