"""What a person sees: tables, and the plan that a dry run prints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from ftk.plan import Plan

STEPS = (
    ("tokenizer", ("model_loader", "template")),
    ("rows", ("source", "converter", "media")),
    ("model", ("model_loader", "quantizer", "model_patch", "adapter")),
    ("optimizer", ("optimizer",)),
    ("train", ("trainer", "launcher")),
    ("answer", ("engine",)),
    ("watch", ("tracker",)),
)


def shorten(value: Any, width: int = 60) -> str:
    """A value in one short line."""
    text = str(value)
    return text if len(text) <= width else f"{text[: width - 1]}…"


def show_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a plain table; it wraps on a terminal; a pipe gets whole lines that end with their last word."""
    console = Console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, title in enumerate(titles):
        table.add_column(title, overflow="fold", no_wrap=number == 0)
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    if console.is_terminal:
        console.print(table)
        return
    wide = Console(width=max(80, table.__rich_measure__(console, console.options.update(width=10_000)).maximum))
    with wide.capture() as shown:
        wide.print(table)
    print("\n".join(map(str.rstrip, shown.get().splitlines())))


def show_plan(plan: Plan) -> None:
    """Print the resolved run: steps in their order, data, options with their origin, notes."""
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"[bold]Plan[/] of {plan.config}, nothing was loaded")
    rows = []
    for number, (step, kinds) in enumerate(STEPS, start=1):
        within = (name for name, kind in plan.registry.kinds.items() if kind.within.partition(":")[0] in kinds)
        for kind in (*kinds, *within):
            for spec in plan.chosen.get(kind, ()):
                who = plan.registry.record_of(spec).who
                rows.append((f"{number} {step}", kind, spec.name, who, spec.summary))
    show_table(("step", "kind", "chosen", "plugin", "what it does"), rows)
    data = [
        (split, one.entry.name, one.entry.origin, str(one.entry.fields.get(one.source.field)), one.converter.name)
        for split, datasets in plan.datasets.items()
        for one in datasets
    ]
    if data:
        console.print()
        show_table(("split", "data set", "declared in", "from", "format"), data)
    console.print()
    show_table(("option", "value", "set at", "owner"), list(_option_rows(plan)))
    for note in plan.notes:
        console.print(f"[yellow]note[/] {note}", markup=True)


def _option_rows(plan: Plan) -> Iterable[tuple[str, str, str, str]]:
    """Keys that were set first, then the selectors and paths that were filled in."""
    selectors = {kind.selector for kind in plan.registry.kinds.values()}
    for key in sorted(plan.values, key=lambda key: (key not in plan.given, key)):
        option = plan.registry.options[key]
        if key in plan.given:
            yield key, shorten(plan.shown(key)), plan.given[key].where, plan.registry.owner_of(option).distribution
        elif key not in selectors and plan.values[key] != option.default:
            yield key, shorten(plan.shown(key)), "derived", plan.registry.owner_of(option).distribution
