"""The command ``ftk plan``."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click
from ftk import ConfigError
from ftk.opening import plan_run
from ftk.plan import Plan
from ftk.showing import show_plan
from ftk_training import TrainingOptions

from ftk_plan.device import Device, device_of
from ftk_plan.memory import Memory, estimate
from ftk_plan.page import show
from ftk_plan.probing import probe
from ftk_plan.rows import Rows, Schedule, look_at, schedule
from ftk_plan.suggesting import Suggestion, suggestions


@dataclass(frozen=True)
class Costs:
    """What was found. measured: bytes of the probe and of what; None without one."""

    plan: Plan
    rows: Rows
    schedule: Schedule
    memory: Memory
    device: Device
    suggestions: tuple[Suggestion, ...] = ()
    measured: tuple[int, str] | None = None

    @property
    def kept(self) -> int:
        """Bytes that the allocator takes beside what is in use."""
        return int(self.device.kept * self.memory.activations)

    @property
    def estimate(self) -> int:
        """Bytes of the process: the tensors, and the program around them."""
        return self.memory.total + self.kept + self.device.program

    @property
    def needed(self) -> int:
        """Bytes: measured where there was a probe, else estimated."""
        return self.measured[0] if self.measured else self.estimate

    @property
    def fits(self) -> bool:
        return self.needed <= self.device.free

    def as_dict(self) -> dict[str, Any]:
        memory = {**vars(self.memory), "tensors": self.memory.total, "kept": self.kept, "estimate": self.estimate}
        return {
            "config": self.plan.config,
            "rows": {
                "source": self.rows.source, "exact": self.rows.exact, "num_rows": self.rows.num_rows,
                "forward_rows": self.rows.forward_rows, "tokens_per_row": round(self.rows.tokens_per_row, 2),
                "trained_per_row": round(self.rows.trained_per_row, 2),
            },
            "schedule": vars(self.schedule),
            "memory": memory,
            "device": vars(self.device),
            "measured": self.measured and {"bytes": self.measured[0], "of": self.measured[1]},
            "needed": self.needed,
            "fits": self.fits,
            "suggestions": [one._asdict() for one in self.suggestions],
        }  # fmt: skip


@click.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@click.argument("config")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[--KEY VALUE]...")
@click.option("--sample", default=1000, show_default=True, help="Rows of each data set to tokenise.")
@click.option("--all", "all_rows", is_flag=True, help="Tokenise all rows, which fills the cache for the run.")
@click.option("--probe", "probed", is_flag=True, help="Make two steps of the run and measure its memory.")
@click.option("--suggest", is_flag=True, help="Say what would save memory even if the run fits.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def plan(
    config: str, words: Sequence[str], sample: int, all_rows: bool, probed: bool, suggest: bool, as_json: bool
) -> None:
    """Say what the run in CONFIG will take: steps, tokens, parameters and memory; no weights are loaded.

    Nothing is written to its output_dir. Exit code 1 when it does not fit this machine.
    """
    made = plan_run(config, words)
    if not as_json:
        show_plan(made)
        click.echo()
    costs = find_out(made, words, None if all_rows else sample, probed=probed, suggest=suggest)
    if as_json:
        click.echo(json.dumps(costs.as_dict(), indent=2))
    else:
        show(costs)
    click.get_current_context().exit(0 if costs.fits else 1)


def find_out(made: Plan, words: Sequence[str], sample: int | None, *, probed: bool, suggest: bool) -> Costs:
    """Everything about a run. Raises FtkError for what the run would stop with, too."""
    if TrainingOptions not in made.options:
        raise ConfigError(f"{made.config}: stage {made.value('stage')} trains nothing, so there is nothing to plan")
    device = device_of(bool(made.value("use_cpu")))
    rows = look_at(made, words, sample)
    if not rows.longest:
        raise ConfigError(f"{made.config}: dataset: no row is left to train on; ftk data report says why rows went")
    steps = schedule(made, rows, int(os.environ.get("WORLD_SIZE", "1")))
    memory = estimate(made, words, rows)
    measured = probe(made, words) if probed else None
    costs = Costs(made, rows, steps, memory, device, (), measured)
    if suggest or not costs.fits:
        room = device.free - device.program - costs.kept
        found = tuple(suggestions(made, words, rows, memory, room))
        costs = Costs(made, rows, steps, memory, device, found, measured)
    return costs
