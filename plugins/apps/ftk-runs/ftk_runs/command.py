"""``ftk runs list | show | diff | plot``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from ftk import ConfigError
from ftk.showing import show_table
from rich.console import Console

from ftk_runs import comparing, reading
from ftk_runs.reading import PastRun

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def runs() -> None:
    """Runs by their directories, or by a folder that holds some."""


@runs.command("list")
@click.argument("folders", nargs=-1, metavar="[DIR]...")
@as_json
def list_runs(folders: tuple[str, ...], as_json: bool) -> None:
    """The runs below DIR, the oldest first; saves, or this folder, when you name none."""
    found = reading.find(folders or ("saves" if Path("saves").is_dir() else ".",))
    if as_json:
        click.echo(json.dumps([_summary(run) for run in found], indent=2))
        return
    rows = []
    for run in found:
        done, wanted = run.steps
        rows.append(
            (run.name, run.status, reading.when(run.record.get("started")), run.method, _base(run),
             f"{done}/{wanted}" if wanted else "", reading.span(run.seconds) if run.seconds else "", _losses(run),
             shown(run.metrics.get("eval_loss")))
        )  # fmt: skip
    titles = ("run", "status", "started", "method", "model", "steps", "time", "loss", "eval loss")
    show_table(titles, rows)


@runs.command()
@click.argument("folder", metavar="DIR")
@as_json
def show(folder: str, as_json: bool) -> None:
    """What the run in DIR was, what came out, and what it left."""
    run = _one(folder)
    if as_json:
        click.echo(json.dumps({**_summary(run), **run.record, "metrics": run.metrics}, indent=2))
        return
    done, wanted = run.steps
    record = run.record
    head = [
        ("status", ": ".join(filter(None, (run.status, record.get("error"))))),
        ("started", reading.when(record.get("started"))),
        ("ended", reading.when(record.get("ended"))),
        ("method", run.method),
        ("model", str(run.options.get("model_name_or_path", ""))),
        (
            "data",
            "; ".join(f"{name}, {fact.get('num_rows')} rows" for name, fact in (record.get("data") or {}).items()),
        ),
        ("steps", f"{done} of {wanted} in {reading.span(run.seconds)}" if wanted else ""),
        ("loss", _losses(run)),
        ("checkpoints", ", ".join(run.checkpoints)),
        ("files", ", ".join(record.get("files") or ())),
    ]
    show_table((run.name, ""), [row for row in head if row[1]])
    _section("metrics", [(name, shown(value)) for name, (value,) in comparing.metrics_of([run])])
    _section("options", [(key, shown(value)) for key, value in sorted(run.options.items())])
    _section("plugins", sorted((record.get("plugins") or {}).items()))


@runs.command()
@click.argument("folders", nargs=-1, required=True, metavar="DIR DIR...")
@as_json
def diff(folders: tuple[str, ...], as_json: bool) -> None:
    """In what runs differ: options, features, versions and data, and all of their final metrics."""
    found = _several(folders)
    sections = comparing.compared(found)
    names = _names(found)
    if as_json:
        made = {
            section: {name: dict(zip(names, values, strict=True)) for name, values in rows}
            for section, rows in sections.items()
        }
        click.echo(json.dumps({"runs": names, **made}, indent=2))
        return
    for section, rows in sections.items():
        if not rows:
            click.echo(f"{section}: no difference\n")
            continue
        unset = "default" if section == "options" else ""
        table = [(name, *(unset if value is None else shown(value) for value in values)) for name, values in rows]
        show_table((section, *names), table)
        click.echo()


@runs.command()
@click.argument("folders", nargs=-1, required=True, metavar="DIR...")
@click.option("--metric", default="loss", show_default=True, help="What is drawn: loss, eval_loss, grad_norm ...")
@click.option("-o", "--out", default="runs.png", show_default=True, help="The picture.")
def plot(folders: tuple[str, ...], metric: str, out: str) -> None:
    """One metric of all runs in one picture."""
    from ftk_training.plot import draw_runs, points

    found = reading.find(folders)
    curves = dict(zip(_names(found), [run.lines for run in found], strict=True))
    if not any(points(lines, metric) for lines in curves.values()):
        known = sorted({key for run in found for line in run.lines for key in line} - {"step", "total_steps"})
        raise ConfigError(
            f"--metric {metric}: none of the runs has logged it. There is {', '.join(known) or 'nothing'}"
        )
    draw_runs(curves, Path(out), metric)
    without = [name for name, lines in curves.items() if not points(lines, metric)]
    click.echo(f"{out}: {metric} of {len(curves) - len(without)} runs")
    if without:
        click.echo(f"not logged by {', '.join(without)}")


def _one(folder: str) -> PastRun:
    found = reading.find((folder,))
    if len(found) > 1:
        raise ConfigError(f"{folder}: holds {len(found)} runs. Name one: ftk runs list {folder} shows them")
    return found[0]


def _several(folders: Sequence[str]) -> list[PastRun]:
    """In the order in which they were named, those of a folder by their start."""
    found: dict[Path, PastRun] = {}
    for folder in folders:
        for run in reading.find((folder,)):
            found.setdefault(run.folder.resolve(), run)
    if len(found) < 2:
        raise ConfigError(f"{', '.join(folders)}: is one run. Name another one to compare it with")
    return list(found.values())


def _names(found: Sequence[PastRun]) -> list[str]:
    """The end of each path that tells it from the others."""
    parts = [run.folder.resolve().parts for run in found]
    for length in range(1, max(len(one) for one in parts) + 1):
        names = ["/".join(one[-length:]) for one in parts]
        if len(set(names)) == len(names):
            return names
    return [run.name for run in found]


def _base(run: PastRun) -> str:
    return str(run.options.get("model_name_or_path", "")).rstrip("/").rpartition("/")[2]


def _losses(run: PastRun) -> str:
    losses = run.losses
    return f"{losses[0]:.4g} → {losses[-1]:.4g}" if losses else ""


def _summary(run: PastRun) -> dict[str, Any]:
    done, wanted = run.steps
    losses = run.losses
    return {
        "folder": run.name, "status": run.status, "started": run.record.get("started"), "method": run.method,
        "model": run.options.get("model_name_or_path"), "step": done, "total_steps": wanted, "seconds": run.seconds,
        "first_loss": losses[0] if losses else None, "last_loss": losses[-1] if losses else None,
        "eval_loss": run.metrics.get("eval_loss"), "checkpoints": run.checkpoints,
    }  # fmt: skip


def shown(value: Any) -> str:
    """A value as a person reads it: nothing for None, few digits for a number, JSON for what has parts."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e6 else f"{value:,.0f}"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list, bool)) else str(value)


def _section(title: str, rows: Sequence[tuple[str, str]]) -> None:
    if rows:
        Console().print()
        show_table((title, ""), rows)
