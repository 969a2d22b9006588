"""Downloading a data set with modelscope's snapshot function and reading the files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftk import DataError, DatasetEntry, PluginError
from ftk_data.files import FileRows
from ftk_data.slices import SlicedRows
from ftk_data.snapshots import open_snapshot

from ftk_modelscope import ModelScopeOptions

if TYPE_CHECKING:
    from ftk.run import Run


def open_rows(entry: DatasetEntry, run: Run) -> FileRows | SlicedRows:
    """The rows of the data set that ``ms_hub_url`` names.

    Raises DataError when it cannot be had or holds no files that fit, PluginError without the modelscope package.
    """
    url = str(entry.fields["ms_hub_url"]).removeprefix("ms://")
    return open_snapshot(entry, downloaded(entry, url, run.options(ModelScopeOptions).ms_hub_token, _cache_dir(run)))


def _cache_dir(run: Run) -> str | None:
    return run.value("cache_dir") if "cache_dir" in run.plan.registry.options else None


def downloaded(entry: DatasetEntry, url: str, token: str | None, cache_dir: str | None) -> Path:
    """The folder that a data set has been downloaded to; what is there already is not fetched again."""
    try:
        from modelscope import dataset_snapshot_download
    except ImportError as cause:
        raise PluginError(
            f'{entry.name}: ms_hub_url needs modelscope: {cause}. pip install "ftk-modelscope[backend]"'
        ) from cause
    asked: dict[str, Any] = {"token": token} if token else {}
    try:
        return Path(dataset_snapshot_download(url, cache_dir=cache_dir, **asked))
    except Exception as cause:  # its errors have no base class of their own, and those of its HTTP library come through
        said = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
        hint = "Mind the spelling; a private one needs ms_hub_token"
        raise DataError(f"{entry.name} ({entry.origin}): {url}: cannot be downloaded: {said}. {hint}") from cause
