"""Data sets of the Modelers hub."""

import os

import ftk


@ftk.options
class OpenMindOptions:
    """Access to the Modelers hub."""

    om_hub_token: str | None = ftk.option(
        None,
        help="Access token of the Modelers hub for private data sets; unset is what the environment has.",
        secret=True,
    )


def order():
    """Before the Hugging Face hub when ``USE_OPENMIND_HUB`` asks for it, else right after."""
    return 2 if os.environ.get("USE_OPENMIND_HUB", "").lower() in ("1", "true", "y") else 30


@ftk.hookimpl
def ftk_dataset_sources():
    yield ftk.DatasetSource(
        "openmind",
        target="ftk_openmind.rows:open_rows",
        field="om_hub_url",
        schemes=("om",),
        entry_fields=("subset", "split", "folder"),
        options=OpenMindOptions,
        reads=("cache_dir",),
        requires=("openmind_hub",),
        extra="backend",
        order=order(),
        all_names="ONLINE",
        summary="A data set of the Modelers hub, downloaded",
    )
