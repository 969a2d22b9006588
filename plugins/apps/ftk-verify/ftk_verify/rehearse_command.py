"""``ftk run CONFIG --rehearse``, which is ``ftk rehearse CONFIG``."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.text import Text


@click.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@click.argument("config")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[--KEY VALUE]...")
def rehearse(config: str, words: Sequence[str]) -> None:
    """Try the whole run that CONFIG describes, on the CPU, with a small random model of the same architecture.

    It goes through training, evaluation, checkpoints, reloading, answering and exporting with a few rows of the data,
    in a temporary folder. What would fail after hours fails now, with the same line.
    """
    began = time.monotonic()
    console = Console(highlight=False)
    console.print(Text(f"Rehearsing {config}", "bold"), soft_wrap=True)

    def say(name: str, seconds: float, note: str) -> None:
        console.print(Text(f"  {name:<22}{seconds:5.1f} s  {note}"), soft_wrap=True)

    with tempfile.TemporaryDirectory(prefix="ftk-rehearsal-") as folder:
        from ftk_verify.rehearsal import Rehearsal

        rehearsal = Rehearsal(config, words, Path(folder), say)
        rehearsal.perform()
    console.print(f"All of it works, in {time.monotonic() - began:.0f} seconds.")
    always = ["the model's own weights and their memory", "all rows but the first", "GPUs and several processes"]
    console.print(Text(f"Not tried: {'; '.join([*rehearsal.untried, *always])}"), soft_wrap=True)
