"""What stands on the terminal: answers on stdout, everything else on stderr."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterable

import click
from ftk.types import ToolCall
from ftk_data.following import Said
from rich.cells import cell_len, set_cell_size


def note(text: str | None) -> None:
    """Say something that is no answer: to stderr, so that stdout holds answers alone."""
    if text is not None:
        click.echo(text, err=True)


def show(pieces: Iterable[Said]) -> bool:
    """Write an answer as it comes, and a line end. What is thought before it stands folded in one dim line.

    Returns whether anything was said; calls and thoughts are not.
    """
    thought, said = Thought(), False
    try:
        for piece in pieces:
            if piece.kind == "reasoning":
                thought.add(piece.text)
                continue
            thought.close()
            click.echo(piece.text, nl=False)
            said = True
    finally:
        thought.close()
    if said:
        click.echo()
    return said


class Thought:
    """A thought in one line: how it begins, and how many words it has. On a terminal it counts while it comes."""

    EVERY = 0.1
    """Seconds between two drawings."""

    def __init__(self) -> None:
        self.text, self.open, self.live, self._drawn = "", True, sys.stderr.isatty(), 0.0

    def add(self, text: str) -> None:
        self.text += text
        now = time.monotonic()
        if self.live and now - self._drawn > self.EVERY:
            self._drawn = now
            click.echo("\r" + self.line("thinking"), nl=False, err=True)

    def close(self) -> None:
        """No more is thought."""
        if self.open and self.text.strip():
            click.echo(("\r" if self.live else "") + self.line("thought"), err=True)
        self.open = False

    def line(self, word: str) -> str:
        """``thinking: First I look at … (34 words)``, as wide as the terminal less one column."""
        words = len(self.text.split())
        first = self.text.strip().partition("\n")[0].strip()
        head, tail = f"{word}: ", f" ({words} word{'s' if words != 1 else ''}, /thoughts shows them)"
        if word == "thinking":
            tail = f" ({words} words)"
        width = shutil.get_terminal_size().columns - 1
        room = max(width - cell_len(head) - cell_len(tail), 8)
        if cell_len(first) > room or first != self.text.strip():
            first = set_cell_size(first, min(cell_len(first), room - 2)).rstrip() + " …"
        line = head + first + tail
        if self.live:
            line = line.ljust(len(line) + width - cell_len(line))  # over what an earlier, longer one has left
        return click.style(line, dim=True)


def written(call: ToolCall) -> str:
    """``look({"city": "Bern"})``"""
    return f"{call.name}({json.dumps(dict(call.arguments), ensure_ascii=False)})"
