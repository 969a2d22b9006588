"""``ftk plugins`` and ``ftk doctor``."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import traceback
from typing import Any

import click

from ftk.errors import PluginError, did_you_mean
from ftk.plugins import PluginRecord
from ftk.registry import Registry
from ftk.specs import KINDS

MARKS = {"ok": "green", "disabled": "dim", "needs": "yellow", "incompatible": "red", "broken": "red", "conflict": "red"}


@click.group()
def plugins() -> None:
    """List, inspect, check and create plugins."""


def _provides(record: PluginRecord) -> list[str]:
    return [spec.id for spec in record.specs]


@plugins.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_plugins(as_json: bool) -> None:
    """Every installed plugin, what it provides, and what is wrong with it."""
    records = Registry.discover().records
    if as_json:
        click.echo(json.dumps([_as_json(record) for record in records], indent=2))
        return
    from ftk.showing import show_table

    rows = []
    for record in records:
        state = f"[{MARKS[record.state]}]{record.state}[/]"
        provides = ", ".join(_provides(record)) or "(library)"
        rows.append((record.name, record.who, state, provides if record.state == "ok" else record.detail))
    show_table(("plugin", "distribution", "state", "provides"), rows)
    for record in records:
        if record.mend and record.state != "disabled":
            click.echo(f"{record.name}: {record.mend}")
    if not records:
        click.echo('No plugins are installed. pip install "ftk-kernel[text]" brings the usual ones.')


def _as_json(record: PluginRecord) -> dict[str, Any]:
    return {
        "name": record.name,
        "distribution": record.distribution,
        "version": record.version,
        "state": record.state,
        "detail": record.detail,
        "mend": record.mend,
        "provides": _provides(record),
    }


def _record(name: str) -> PluginRecord:
    records = Registry.discover().records
    for record in records:
        if name in (record.name, record.distribution):
            return record
    guess = did_you_mean(name, [record.name for record in records]) or " ftk plugins list shows all"
    raise PluginError(f"{name}: no plugin of that name is installed.{guess}")


@plugins.command()
@click.argument("name")
@click.option("-v", "--verbose", is_flag=True, help="Show the traceback of a broken plugin.")
def show(name: str, verbose: bool) -> None:
    """What plugin NAME declares: its features, its options, and its trouble."""
    from ftk.options import fields_of
    from ftk.showing import show_table

    record = _record(name)
    click.echo(f"{record.name}: {record.who}, module {record.module}, {record.state} {record.detail}".rstrip())
    if record.mend:
        click.echo(f"mend it with: {record.mend}")
    if record.error and verbose:
        click.echo("".join(traceback.format_exception(record.error)))
    rows = [(spec.id, spec.summary, spec.target or "(a value)") for spec in record.specs]
    if rows:
        show_table(("feature", "what it is", "code"), rows)
    classes = dict.fromkeys(cls for spec in record.specs for cls in spec.option_classes)
    options = [option for cls in classes for option in fields_of(cls).values()]
    if options:
        show_table(("option", "type", "default", "help"), [_option_row(option) for option in options])


def _option_row(option: Any) -> tuple[str, str, str, str]:
    from ftk.showing import shorten

    return option.key, option.type_text, shorten(option.default), option.help


@plugins.command()
@click.argument("name")
def check(name: str) -> None:
    """Run the contract tests that every plugin has to pass on plugin NAME."""
    from ftk.testing import check_plugin

    for line in check_plugin(_record(name).name):
        click.echo(line)
    click.echo(f"{name}: all checks passed")


@plugins.command()
@click.argument("kind", type=click.Choice(sorted(KINDS)))
@click.argument("name")
@click.option("--folder", default=".", help="Where to put it.", show_default=True)
def new(kind: str, name: str, folder: str) -> None:
    """Write a plugin package of KIND called NAME, ready to install and to change."""
    from pathlib import Path

    from ftk.scaffold import new_plugin

    made = new_plugin(kind, name, Path(folder))
    click.echo(f"{made} is a complete plugin. Next:")
    click.echo(f"  pip install -e {made}")
    click.echo(f"  ftk plugins check {made.name.removeprefix('ftk-')}")
    click.echo(f"  pytest {made}")


@click.command()
def doctor() -> None:
    """Versions, devices, and plugins in trouble with the command that mends each."""
    from ftk.rundir import library_versions
    from ftk.showing import show_table
    from ftk.version import __version__

    records = Registry.discover().records
    versions = library_versions(record.distribution for record in records)
    rows = [("python", f"{platform.python_version()} ({sys.executable})"), ("ftk-kernel", __version__)]
    rows += [(name, version) for name, version in versions.items() if not name.startswith("ftk-")]
    show_table(("package", "version"), rows)
    show_table(("device", "what"), list(_devices()))
    trouble = [record for record in records if record.state not in ("ok", "disabled")]
    click.echo(f"{len(records)} plugins, {len(trouble)} in trouble")
    for record in trouble:
        click.echo(f"  {record.who} is {record.state}: {record.detail}")
        click.echo(f"    {record.mend}")
    sys.exit(1 if any(record.state != "needs" for record in trouble) else 0)


def _devices() -> list[tuple[str, str]]:
    """What the machine has, asked of the system and the driver's own tool, without importing a tensor library."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = [("cpu", f"{usable} cores, {platform.machine()}")]
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        found.append(("memory", f"{gib:.1f} GiB"))
    found.append(("disk", f"{shutil.disk_usage('.').free / 2**30:.1f} GiB free here"))
    gpus = [line for line in _driver_says() if line]
    return found + [("gpu", line) for line in gpus or ["none found"]]


def _driver_says() -> list[str]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    asked = [tool, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, timeout=10, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError) as error:
        return [f"nvidia-smi failed: {error}"]
