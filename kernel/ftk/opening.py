"""Opening what a user points at, a YAML or a run directory, as settings, a plan, or a run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import cast

from ftk.config import Setting, merge, parse_overrides, read_yaml
from ftk.errors import ConfigError
from ftk.plan import Plan, make_plan
from ftk.registry import Registry
from ftk.run import Run
from ftk.rundir import RECORD, read_record
from ftk.specs import Command


def read_settings(source: str | None, words: Iterable[str]) -> tuple[dict[str, Setting], str]:
    """The settings of a YAML file or a run directory with the command line put over them, and how to call the source.

    Raises ConfigError when the source cannot be read.
    """
    overrides = parse_overrides(words)
    if source is None:
        return merge({}, overrides), "command line"
    if Path(source).is_dir():
        return merge(_settings_of_run(Path(source)), overrides), str(Path(source) / RECORD)
    return merge(read_yaml(source), overrides), source


def _settings_of_run(folder: Path) -> dict[str, Setting]:
    record = read_record(folder)
    if record is None:
        raise ConfigError(f"{folder}: is no run directory (it has no {RECORD}). Give a YAML file or a run directory")
    where = str(folder / RECORD)
    return {key: Setting(value, where) for key, value in record["options"].items() if value != "***"}


def plan_run(source: str, words: Iterable[str]) -> Plan:
    """The plan of ``ftk run SOURCE WORDS...``.

    Raises FtkError subclasses for whatever is wrong with it.
    """
    settings, config = read_settings(source, words)
    return make_plan(settings, _registry(settings), config=config)


def open_run(command: str, source: str | None, words: Iterable[str] = (), *, base: bool = False) -> Run:
    """A run for a command such as ``chat``: the model, adapter, template and engine that ``source`` describes.

    ``source`` is a YAML, a run directory, or None when the words name the model. When the source's output_dir holds a
    finished run, its result is what the command works on, unless ``base`` asks for the model that it started from.
    Raises FtkError subclasses for whatever is wrong.
    """
    settings, config = read_settings(source, words)
    if not base:
        settings = merge(settings, _result_of(settings, source))
    registry = _registry(settings)
    return Run(make_plan(settings, registry, config=config, command=cast("Command", registry.find("command", command))))


def _result_of(settings: dict[str, Setting], source: str | None) -> dict[str, Setting]:
    """The settings that point at what a finished run has left; none when the command line names a model or adapter."""
    named = [settings[key] for key in ("model_name_or_path", "adapter_name_or_path") if key in settings]
    if any(setting.where.startswith("command line") for setting in named):
        return {}
    folder = source if source and Path(source).is_dir() else getattr(settings.get("output_dir"), "value", None)
    record = read_record(folder) if folder else None
    if record and record.get("status") != "finished" and folder == source:
        raise ConfigError(
            f"{folder}: its run is not finished. Type ftk run {record['config']} to go on with it, or say --base for "
            "the model that it started from"
        )
    if not record or record.get("status") != "finished":
        return {}
    where = f"the finished run in {folder}"
    if record.get("result") == "model":
        return {"model_name_or_path": Setting(str(folder), where)}
    # `beneath`: adapters that the run merged into its base model before it trained its own; `base`: the folder in the
    # run directory of a base model that it has changed, with those merged
    if base := record.get("base"):
        changed = Setting(str(Path(str(folder)) / base), where)
        return {"model_name_or_path": changed, "adapter_name_or_path": Setting([str(folder)], where)}
    return {"adapter_name_or_path": Setting([*record.get("beneath", ()), str(folder)], where)}


def _registry(settings: dict[str, Setting]) -> Registry:
    """The registry without what ``plugins: {disable: [...]}`` names."""
    setting = settings.get("plugins")
    names = setting.value.get("disable", ()) if setting and isinstance(setting.value, dict) else ()
    if isinstance(names, str):
        names = [name.strip() for name in names.split(",")]
    return Registry.discover(names)
