"""Opening a data set of the hub with the datasets library. Code that a data set brings along is never run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ftk import ConfigError, DataError, DatasetEntry, PluginError
from ftk_data.columnar import ArrowRows
from ftk_data.file_formats import Lost

if TYPE_CHECKING:
    from ftk.run import Run

BATCH = 100
"""Rows that become Python objects at once: a row with images can be megabytes."""
INSTEAD = "Save its rows as Parquet or JSON Lines once, and name the file under file_name"


def open_rows(entry: DatasetEntry, run: Run) -> HubRows:
    """The rows of the data set that ``hf_hub_url`` names: a name on the hub or a folder laid out like one.

    Raises DataError when it cannot be had, PluginError without the datasets library.
    """
    url = str(entry.fields["hf_hub_url"]).removeprefix("hf://")
    streaming = bool(_value(run, "streaming"))
    data = _loaded(
        entry,
        path=url,
        name=entry.fields.get("subset"),
        data_dir=entry.fields.get("folder"),
        split=entry.fields.get("split") or "train",
        cache_dir=_value(run, "cache_dir"),
        token=_value(run, "hf_hub_token"),
        streaming=streaming,
    )
    return HubRows(entry, url, data) if streaming else CountedHubRows(entry, url, data)


def refuse_script(entry: DatasetEntry, run: Run) -> NoReturn:
    """Raises ConfigError: a loading script is code from somebody else."""
    script = entry.fields["script_url"]
    raise ConfigError(f"{entry.name} ({entry.origin}): script_url: {script}: loading scripts are not run. {INSTEAD}")


def _value(run: Run, key: str) -> Any:
    """An option that another plugin owns, None where it is not installed."""
    return run.value(key) if key in run.plan.registry.options else None


def _loaded(entry: DatasetEntry, *, path: str, **asked: Any) -> Any:
    """What ``datasets.load_dataset`` gives. Raises DataError with its reason in one line."""
    try:
        from datasets import load_dataset
        from datasets.exceptions import DatasetNotFoundError, DatasetsError
    except ImportError as cause:
        raise PluginError(f"{entry.name}: data sets of the hub need datasets: {cause}. pip install datasets") from cause
    try:
        return load_dataset(path, **asked)
    except DatasetNotFoundError as cause:
        hint = "Mind the spelling; a private or gated one needs hf_hub_token or hf auth login"
        raise DataError(f"{entry.name} ({entry.origin}): {path}: is not on the hub. {hint}") from cause
    except (DatasetsError, OSError, ValueError, RuntimeError, KeyError, TypeError, NotImplementedError) as cause:
        said = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
        if "script" in said.lower():
            said = f"comes with a loading script, which is not run. {INSTEAD}"
        raise DataError(f"{entry.name} ({entry.origin}): {path}: {said}") from cause


class HubRows:
    """The rows of a data set of the datasets library, media as the bytes or paths that are stored."""

    def __init__(self, entry: DatasetEntry, url: str, data: Any) -> None:
        self.entry, self.url, self.data = entry, url, data

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return self.at(0)

    def at(self, index: int) -> Iterator[Mapping[str, Any]]:
        return ArrowRows(self._tables(self._from(index)), lambda row: f"{self.entry.name}: {self.where(index + row)}")

    def where(self, index: int) -> str:
        return f"{self.url}, split {self._split}, row {index + 1}"

    def fingerprint(self) -> str:
        return _digest([self._asked, self._revision()])

    @property
    def _split(self) -> str:
        return str(self.entry.fields.get("split") or "train")

    @property
    def _asked(self) -> list[Any]:
        return [self.url, self.entry.fields.get("subset"), self.entry.fields.get("folder"), self._split]

    def _from(self, index: int) -> Any:
        return self.data.skip(index) if index else self.data

    def _tables(self, data: Any) -> Iterator[Any]:
        """Rows by way of Arrow: many times quicker than one by one, and images stay undecoded."""
        from datasets.exceptions import DatasetsError

        try:
            yield from data.with_format("arrow").iter(batch_size=BATCH)
        except (DatasetsError, OSError, ValueError, RuntimeError) as cause:
            said = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
            raise Lost(f"{self.entry.name}: {self.url}: cannot be read: {said}") from cause

    def _revision(self) -> str:
        """The commit that a stream reads. Raises DataError when the hub cannot be asked."""
        if Path(self.url).exists():
            files = sorted(path for path in Path(self.url).rglob("*") if path.is_file())
            return _digest([[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files])
        from huggingface_hub import HfApi

        try:
            return str(HfApi().dataset_info(self.url).sha)
        except (OSError, ValueError) as cause:
            said = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
            raise DataError(f"{self.entry.name}: {self.url}: the hub does not answer: {said}") from cause


class CountedHubRows(HubRows):
    """Rows that have been downloaded."""

    def __len__(self) -> int:
        return len(self.data)

    def fingerprint(self) -> str:
        """The files of the library's cache: their names hold the digests of what was downloaded."""
        files = [str(file["filename"]) for file in self.data.cache_files]
        return _digest([self._asked, files, len(self.data), self.data.info.download_checksums])

    def at(self, index: int) -> Iterator[Mapping[str, Any]]:
        return super().at(index) if index < len(self) else iter(())

    def _from(self, index: int) -> Any:
        return self.data.select(range(index, len(self))) if index else self.data


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:32]
