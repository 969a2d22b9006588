"""The run directory: its ``run.json``, and folders that are written aside, verified and renamed.

A kill at any instant leaves either the old state or the new one, never half of each: a folder becomes visible under its
name only after every byte of it has reached the disk.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftk.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from ftk.plan import Plan

RECORD = "run.json"
MANIFEST = "manifest.json"
ASIDE = ".aside-"
KEPT = "What was there before is kept; free some space and start the same command again"

MAY_DIFFER = frozenset(
    {"overwrite_output_dir", "resume_from_checkpoint", "report_to", "launcher", "plugins", "output_dir"}
)
"""Options that may differ between a run and its continuation."""


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old text or the new one, whatever happens in between.

    Raises CheckpointError when the disk is full or the folder cannot be written.
    """
    aside = path.with_name(f"{ASIDE}{path.name}")
    try:
        with aside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as cause:
        aside.unlink(missing_ok=True)
        raise CheckpointError(f"{path}: cannot be written: {cause.strerror or cause}. Nothing was changed") from cause


@contextmanager
def written_aside(target: Path) -> Iterator[Path]:
    """Fill a folder aside, then put it under its name in one step.

    Yields a fresh folder beside ``target``. When the block ends, a manifest with the size and SHA-256 of every file is
    added, everything is flushed to disk, read back once, and renamed; an earlier folder of that name is replaced. When
    the block raises, the folder aside is removed and ``target`` stays as it was.
    Raises CheckpointError when the disk is full or what was read back differs.
    """
    aside = target.with_name(f"{ASIDE}{target.name}")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        yield aside
        _write_manifest(aside)
        problem = damage(aside)
        if problem:
            raise CheckpointError(f"{target}: what was written could not be read back: {problem}")
        _rename(aside, target)
    except OSError as cause:
        raise CheckpointError(f"{target}: cannot be written: {cause.strerror or cause}. {KEPT}") from cause
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _rename(aside: Path, target: Path) -> None:
    old = target.with_name(f"{ASIDE}old-{target.name}")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.replace(old)
    aside.replace(target)
    _sync(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_manifest(folder: Path) -> None:
    entries = {}
    for path in _files(folder):
        _sync(path)
        entries[path.relative_to(folder).as_posix()] = {"size": path.stat().st_size, "sha256": _digest(path)}
    write_text(folder / MANIFEST, json.dumps(entries, indent=1))
    _sync(folder)


def damage(folder: Path) -> str:
    """What is wrong with a folder made by :func:`written_aside`, in a few words; empty when it is whole."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return f"{MANIFEST} is missing, so it was never finished"
    except (OSError, ValueError) as error:
        return f"{MANIFEST} cannot be read: {error}"
    for name, entry in manifest.items():
        path = folder / name
        if not path.exists():
            return f"{name} is missing"
        if path.stat().st_size != entry["size"]:
            return f"{name} has {path.stat().st_size} bytes instead of {entry['size']}"
        if _digest(path) != entry["sha256"]:
            return f"{name} has changed since it was written"
    return ""


def make(folder: Path) -> None:
    """Create the run directory. Raises CheckpointError when that is not possible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        raise CheckpointError(
            f"{folder}: cannot be made: {cause.strerror or cause}. Choose another output_dir"
        ) from cause


def clean_leftovers(folder: Path) -> None:
    """Remove what a killed run was writing aside."""
    for path in folder.glob(f"{ASIDE}*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def read_record(folder: str | Path) -> dict[str, Any] | None:
    """The ``run.json`` of a run directory, None when there is none.

    Raises CheckpointError when it cannot be read.
    """
    path = Path(folder) / RECORD
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as cause:
        raise CheckpointError(f"{path}: cannot be read: {cause}. Move it away to use the folder again") from cause
    return record


def plain(value: Any) -> Any:
    """A value as JSON can hold it."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(inner) for inner in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def resolved_options(plan: Plan) -> dict[str, Any]:
    """The options that the user set or that differ from their defaults, secrets masked."""
    return {
        key: plain(plan.shown(key))
        for key, value in sorted(plan.values.items())
        if key in plan.given or value != plan.registry.options[key].default
    }


def prepare(plan: Plan, folder: Path) -> bool:
    """Make the folder ready for this run and say whether it continues an interrupted one.

    A folder that is new, empty or foreign to ftk, or whose run failed before its first checkpoint, is used as it is. An
    unfinished run with the same options goes on, also with ``overwrite_output_dir``, which is there for results;
    ``resume_from_checkpoint: false`` begins anew.
    Raises ConfigError, without touching anything, when the folder holds another run or the finished results of this
    one, unless ``overwrite_output_dir`` or ``resume_from_checkpoint`` says what to do.
    """
    record = read_record(folder)
    wanted = plan.value("resume_from_checkpoint")
    differing = _differences(record, plan) if record else []
    finished = record is not None and record.get("status") == "finished"
    if wanted or (record and wanted is None and not finished and not differing):
        clean_leftovers(folder)
        return True
    if record and record.get("status") == "failed" and not list(folder.glob("checkpoint-*")):
        return False  # an error in the YAML was mended; there is nothing that could be lost
    if plan.value("overwrite_output_dir") and folder.is_dir():
        _throw_away(folder, record)
    if record is None or plan.value("overwrite_output_dir"):
        return False
    if finished:
        raise ConfigError(
            f"{folder}: holds the results of a finished run ({record.get('started')}). Choose another output_dir, "
            "or say --overwrite_output_dir true, or --resume_from_checkpoint true to train on"
        )
    differs = f" that differs in {', '.join(differing)}" if differing else ""
    raise ConfigError(
        f"{folder}: holds an unfinished run{differs}. "
        "Continue it with its options, choose another output_dir, or say --overwrite_output_dir true"
    )


def _differences(record: Mapping[str, Any], plan: Plan) -> list[str]:
    old, new = record.get("options", {}), resolved_options(plan)
    return sorted(key for key in {*old, *new} - MAY_DIFFER if old.get(key) != new.get(key))


def _throw_away(folder: Path, record: Mapping[str, Any] | None) -> None:
    """Remove what earlier runs of ftk left, by the list that they kept, and nothing else."""
    clean_leftovers(folder)
    for checkpoint in folder.glob("checkpoint-*"):
        if (checkpoint / MANIFEST).exists():
            shutil.rmtree(checkpoint)
    for name in (record or {}).get("files", ()):
        path = folder / name
        if path.is_file() and path.resolve().is_relative_to(folder.resolve()):
            path.unlink()
    (folder / RECORD).unlink(missing_ok=True)


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def library_versions(distributions: Iterable[str]) -> dict[str, str]:
    """The installed versions of everything that some distributions require directly."""
    import re
    from importlib.metadata import PackageNotFoundError, requires, version

    found: dict[str, str] = {}
    for distribution in distributions:
        for line in requires(distribution) or ():
            name = re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0]
            try:
                found[name] = version(name)
            except PackageNotFoundError:
                continue  # an extra that is not installed
    return dict(sorted(found.items()))
