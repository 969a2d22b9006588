"""What ``ftk plan`` prints below the plan."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from ftk_plan.plan_command import Costs


def size(num_bytes: float) -> str:
    """``1.25 GB``, three digits."""
    for unit in ("bytes", "kB", "MB"):
        if abs(num_bytes) < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:,.1f} GB" if num_bytes >= 100 else f"{num_bytes:.3g} GB"


def count(number: float | None) -> str:
    return "unknown" if number is None else f"{round(number):,}"


def show(costs: Costs) -> None:
    console = Console(soft_wrap=True, highlight=False)
    about = "" if costs.rows.exact else "about "
    steps, rows = costs.schedule, costs.rows
    console.print("[bold]Length[/]")
    _table(
        console,
        (
            ("rows", f"{about}{count(rows.num_rows)}", f"from {rows.source}{_sequences(rows.forward_rows)}"),
            ("steps", f"{about}{count(steps.num_steps)}", f"{count(steps.steps_per_epoch)} in an epoch"),
            ("tokens per step", f"about {count(steps.tokens_per_step)}", f"{count(steps.trained_per_step)} trained"),
            ("tokens per epoch", f"{about}{count(steps.tokens_per_epoch)}", f"{count(steps.num_tokens)} in all"),
        ),
    )
    memory = costs.memory
    share = 100 * memory.num_trainable / max(1, memory.num_parameters)
    console.print(f"\n[bold]Memory[/] of one process on {costs.device.name}, no weights were loaded")
    long = f"{memory.batch[0]} x {memory.batch[1]:,} tokens, the longest rows"
    _table(
        console,
        (
            ("weights", size(memory.weights), f"{memory.num_parameters:,} parameters"),
            *((("reference model", size(memory.reference), ""),) if memory.reference else ()),
            ("gradients", size(memory.gradients), f"{memory.num_trainable:,} learn ({share:.2f}%)"),
            ("optimizer", size(memory.optimizer), ""),
            ("activations", size(memory.activations), long),
            ("allocator", size(costs.kept), "freed pieces that do not fit, a guess"),
            ("program", size(costs.device.program), "Python and its libraries"),
            ("estimate", size(costs.estimate), f"{size(memory.total)} of it tensors"),
            *((("measured", size(costs.measured[0]), f"two steps, {costs.measured[1]}"),) if costs.measured else ()),
        ),
    )
    for note in memory.notes:
        console.print(f"[yellow]note[/] {note}")
    free = f"{size(costs.device.free)} of {size(costs.device.total)} are free"
    if costs.fits:
        console.print(f"\n[green]It fits[/]: {free}.")
    else:
        console.print(f"\n[bold red]It does not fit[/]: {free}, it needs {size(costs.needed)}.")
    if costs.suggestions:
        console.print("\n[bold]What would save memory[/], each by itself")
        _table(console, ((_words(one.settings), size(one.saves), _cost(one, costs.fits)) for one in costs.suggestions))


def _sequences(number: int) -> str:
    return f", {number} sequences each" if number > 1 else ""


def _words(settings: object) -> str:
    return ", ".join(f"{key}: {str(one).lower()}" for key, one in dict(settings).items())  # type: ignore[call-overload]


def _cost(one: object, already: bool) -> str:
    cost, fits = one.cost, one.fits  # type: ignore[attr-defined]
    return f"{cost}; then it fits" if fits and not already else cost


def _table(console: Console, rows: Iterable[tuple[str, str, str]]) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(overflow="fold")
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="dim", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)
