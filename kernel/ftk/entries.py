"""Data set entries: what the YAML says becomes (entry, source, converter). Reads ``dataset_info.json`` and no data."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ftk.errors import ConfigError, PluginError, did_you_mean
from ftk.specs import DatasetConverter, DatasetSource
from ftk.types import DatasetEntry

if TYPE_CHECKING:
    from ftk.registry import Registry

INFO = "dataset_info.json"
SHARED_FIELDS = frozenset({"formatting", "columns", "tags", "num_samples", "name"})


@dataclass(frozen=True)
class PlannedDataset:
    """A data set of a run with the source that opens it and the converter that reads its rows."""

    entry: DatasetEntry
    source: DatasetSource
    converter: DatasetConverter


@dataclass(frozen=True)
class EntryReader:
    """Resolves data sets against one registry, ``dataset_dir`` and the folder of the config.

    value: key → what the run has for it.
    """

    registry: Registry
    dataset_dir: str | Mapping[str, Any]
    config_dir: Path
    value: Callable[[str], Any]

    def plan(self, value: Any) -> list[PlannedDataset]:
        """The data sets that ``dataset:`` names.

        Raises ConfigError for a name that is nowhere, an unreadable ``dataset_info.json`` and an unknown field;
        PluginError when no installed source or converter takes an entry.
        """
        names: set[str] = set()
        planned = []
        for entry in self._entries(value):
            name, number = entry.name, 1
            while name in names:  # reports and evaluations go by it
                number += 1
                name = f"{entry.name}-{number}"
            names.add(name)
            planned.append(self._plan_entry(replace(entry, name=name)))
        return planned

    def _entries(self, value: Any) -> Iterator[DatasetEntry]:
        if isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()]
        elif isinstance(value, Mapping):
            value = [value]
        for number, item in enumerate(value, start=1):
            if isinstance(item, Mapping):
                name = str(item.get("name") or f"inline-{number}")
                yield DatasetEntry(name, dict(item), "the YAML", str(self.config_dir))
            else:
                yield self._named(str(item))

    def _named(self, text: str) -> DatasetEntry:
        info, origin = self._info
        if text in info:
            if not isinstance(info[text], Mapping):
                raise ConfigError(f"{text}: {origin} has no mapping under this name")
            return DatasetEntry(text, info[text], origin, self._folder())
        return self._from_path(text, info, origin)

    def _folder(self) -> str:
        return str(self._existing(str(self.dataset_dir))) if isinstance(self.dataset_dir, str) else str(self.config_dir)

    def _existing(self, path: str) -> Path:
        """A relative path is looked up from the working directory first, then from the config's folder."""
        beside = self.config_dir / path
        return beside if not Path(path).exists() and beside.exists() else Path(path)

    @cached_property
    def _info(self) -> tuple[Mapping[str, Any], str]:
        if isinstance(self.dataset_dir, Mapping):
            return self.dataset_dir, "dataset_dir"
        for source in self._sources():
            if source.info_prefix and self.dataset_dir.startswith(source.info_prefix):
                return source.load("info")(self.dataset_dir, self.value), self.dataset_dir
        path = Path(self._folder()) / INFO
        return _read_info(path) if path.exists() else {}, str(path)

    def _from_path(self, text: str, info: Mapping[str, Any], origin: str) -> DatasetEntry:
        match = re.match(r"([a-zA-Z][a-zA-Z0-9+.-]*)://", text)
        scheme = match[1] if match else ""
        path = text if scheme else str(self._existing(text))
        for source in self._sources():
            if source.all_names and source.all_names == self.dataset_dir and not (scheme or Path(path).is_file()):
                return DatasetEntry(text, {source.field: text}, f"dataset_dir {self.dataset_dir}", "")
            if scheme in source.schemes and (scheme or Path(path).exists()):
                return DatasetEntry(Path(text).stem, {source.field: path}, "the YAML", "")
        if scheme:
            raise ConfigError(f"{text}: no installed source opens {scheme}://")
        there = "" if info else " (which does not exist)" if not Path(origin).exists() else " (which is empty)"
        guess = did_you_mean(text, info)
        raise ConfigError(
            f"{text} is neither a name in {origin}{there} nor a file.{guess or ' Give a path or add it there'}"
        )

    def _sources(self) -> list[DatasetSource]:
        found = [cast("DatasetSource", spec) for spec in self.registry.specs("source").values()]
        return sorted(found, key=lambda spec: (spec.order, spec.name))

    def _plan_entry(self, entry: DatasetEntry) -> PlannedDataset:
        source = next((spec for spec in self._sources() if entry.fields.get(spec.field)), None)
        if source is None:
            raise PluginError(f"{entry.name} ({entry.origin}): {self._no_source(entry)}")
        formatting = entry.fields.get("formatting")
        converter = self.registry.find("converter", formatting) if formatting else self.registry.default("converter")
        if converter is None:
            installed = ", ".join(self.registry.specs("converter")) or "none"
            raise PluginError(f"{entry.name} ({entry.origin}): give its formatting. Installed converters: {installed}")
        planned = PlannedDataset(entry, source, cast("DatasetConverter", converter))
        self._check_fields(planned)
        return planned

    def _no_source(self, entry: DatasetEntry) -> str:
        for key in entry.fields:
            why = str(self.registry.unknown_option(f"source-field:{key}"))
            if "belongs to" in why:
                return why.removeprefix("source-field:")
        fields = ", ".join(spec.field for spec in self._sources())
        return f"no installed source takes it. An entry needs one of: {fields or 'no source is installed'}"

    def _check_fields(self, planned: PlannedDataset) -> None:
        entry, converter = planned.entry, planned.converter
        known = SHARED_FIELDS | {spec.field for spec in self._sources()} | set(converter.entry_fields)
        known |= {name for spec in self._sources() for name in spec.entry_fields}
        where = f"{entry.name} ({entry.origin})"
        for key in entry.fields:
            foreign = str(self.registry.unknown_option(f"source-field:{key}"))
            if key not in known and "belongs to" not in foreign:
                raise ConfigError(f"{where}: {key}: unknown field of a data set.{did_you_mean(key, known)}")
        for part, names in (("columns", converter.columns), ("tags", converter.tags)):
            given = entry.fields.get(part) or {}
            if not isinstance(given, Mapping):
                raise ConfigError(f"{where}: {part}: expected a mapping, found {given!r}")
            for key in given:
                if names and key not in names:
                    guess = did_you_mean(key, names) or f" Known: {', '.join(names)}"
                    raise ConfigError(f"{where}: {part}.{key}: the {converter.name} converter has none such.{guess}")


def _read_info(path: Path) -> Mapping[str, Any]:
    try:
        info = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as cause:
        raise ConfigError(f"{path}:{cause.lineno}:{cause.colno}: does not parse: {cause.msg}") from cause
    except OSError as cause:
        raise ConfigError(f"{path}: cannot be read: {cause.strerror}") from cause
    except (ValueError, RecursionError) as cause:
        raise ConfigError(f"{path}: cannot be read: {cause}") from cause
    if not isinstance(info, dict):
        raise ConfigError(f"{path}: expected a mapping of names to entries")
    return info
