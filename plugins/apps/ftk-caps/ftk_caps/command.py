"""The command, and its table."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click
from ftk import ConfigError
from ftk.errors import did_you_mean
from ftk.registry import Registry
from ftk.showing import show_table

from ftk_caps.pairs import Choice, Verdict, choices, verdict

Row = tuple[Choice, Sequence[Verdict]]


@click.command()
@click.argument("rows", default="quantizer")
@click.argument("columns", default="adapter")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def caps(rows: str, columns: str, as_json: bool) -> None:
    """Which features of kind ROWS go together with which of kind COLUMNS.

    ROWS is quantizer and COLUMNS is adapter unless you name others, for instance: ftk caps trainer adapter.
    """
    registry = Registry.discover()
    for kind in (rows, columns):
        if kind not in registry.kinds:
            guess = did_you_mean(kind, registry.kinds)
            raise ConfigError(f"{kind}: is no kind.{guess} There is {', '.join(sorted(registry.kinds))}")
    across = list(choices(registry, columns))
    table = [(down, [verdict(registry, down, one) for one in across]) for down in choices(registry, rows)]
    if as_json:
        click.echo(json.dumps([_as_json(down, across, verdicts) for down, verdicts in table], indent=2))
    else:
        _show(rows, across, table)


def _as_json(down: Choice, across: Sequence[Choice], verdicts: Sequence[Verdict]) -> dict[str, object]:
    with_each = {
        one.label: {"verdict": said.word, "refusals": said.refusals, "lacks": said.lacks, "gpu": said.gpu}
        for one, said in zip(across, verdicts, strict=True)
    }
    return {"name": down.label, "with": with_each}


def _show(kind: str, across: Sequence[Choice], table: Sequence[Row]) -> None:
    reasons = list(dict.fromkeys(reason for _, verdicts in table for said in verdicts for reason in _reasons(said)))
    lines = []
    for down, verdicts in table:
        cells = [" ".join([said.word, *(str(reasons.index(one) + 1) for one in _reasons(said))]) for said in verdicts]
        lines.append((down.label, *cells))
    show_table((kind, *(one.label for one in across)), lines)
    for number, reason in enumerate(reasons, start=1):
        click.echo(f"{number} {reason}")


def _reasons(said: Verdict) -> tuple[str, ...]:
    if said.refusals:
        return said.refusals
    return (f"needs {', '.join(said.lacks)}; ftk plugins list says how to install it",) if said.lacks else ()
